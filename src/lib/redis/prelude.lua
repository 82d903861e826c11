-- The beginning of the library. Each domain's file below adds to `fn`, at the beginning of a line:
--   function fn.NAME(keys, args) ... end
-- and to `flags` where a function needs some: flags.NAME = { 'allow-oom' }.
-- Amounts are text: a double has 53 bits, and text made from a number 14 digits. They are added by HINCRBY alone.
-- Every loop is bounded; everything is checked before the first write, since a function that fails keeps what it wrote.
-- What several domains share is in `lib`: each file has a scope of its own.
local fn, flags, lib = {}, {}, {}

-- ms since the epoch, of this server.
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- An integer as text, without exponent.
local function int(n)
  return string.format('%.0f', n)
end

-- The amount as text with the other sign.
local function negated(amount)
  if amount == '0' then return '0' end
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  return '-' .. amount
end

-- The server's time, in ms since the epoch.
function fn.now()
  return int(now_ms())
end
