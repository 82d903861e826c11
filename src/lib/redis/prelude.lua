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

-- Calls several functions, one after the other. Each has an answer of its own: an error of one is in its place.
-- keys: those of all calls, in their order; args: for each call its name, how many keys and args it has, and these
-- -> the answers
function fn.batch(keys, args)
  local replies, k, a = {}, 0, 0
  while a < #args do
    local call, own_keys, own_args = fn[args[a + 1]], {}, {}
    for i = 1, tonumber(args[a + 2]) do own_keys[i] = keys[k + i] end
    for i = 1, tonumber(args[a + 3]) do own_args[i] = args[a + 3 + i] end
    k, a = k + #own_keys, a + 3 + #own_args
    local worked, reply = pcall(call, own_keys, own_args)
    if not worked then reply = type(reply) == 'table' and reply or { err = 'ERR ' .. tostring(reply) } end
    replies[#replies + 1] = reply == nil and false or reply
  end
  return replies
end

-- The same for functions that run even where memory is full.
function fn.batch_tolerant(keys, args)
  return fn.batch(keys, args)
end
flags.batch_tolerant = { 'allow-oom' }
