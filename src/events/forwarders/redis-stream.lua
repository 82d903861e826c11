-- Adds events to a stream, in order, and trims it. Either all of them are added, or a first part before an error.
--
-- KEYS[1] the stream
-- ARGV[1] most entries that it may have
-- ARGV[2] "acknowledged": never removes what a group has not acknowledged, and adds nothing to a full stream;
--         "length": removes the oldest
-- then for each event the number of its names and values, and these
--
-- Returns how many events were added (0: it is full), and how many were removed that not all groups had acknowledged.

local stream, most, mode = KEYS[1], tonumber(ARGV[1]), ARGV[2]
-- More are removed by the next calls: a lower limit must not block the server.
local mostRemoved = 1000

local function parts(id)
  local ms, seq = string.match(id, "^(%d+)-(%d+)$")
  return tonumber(ms), tonumber(seq)
end

local function isBefore(a, b)
  local aMs, aSeq = parts(a)
  local bMs, bSeq = parts(b)
  return aMs < bMs or (aMs == bMs and aSeq < bSeq)
end

-- The first id that some group has not acknowledged; nil where there is no group.
local function firstNeeded()
  local first
  for _, flat in ipairs(redis.call("XINFO", "GROUPS", stream)) do
    local group = {}
    for at = 1, #flat, 2 do
      group[flat[at]] = flat[at + 1]
    end
    local id
    if group["pending"] > 0 then
      id = redis.call("XPENDING", stream, group["name"])[2]
    else
      local ms, seq = parts(group["last-delivered-id"])
      id = string.format("%.0f-%.0f", ms, seq + 1)
    end
    if not first or isBefore(id, first) then
      first = id
    end
  end
  return first
end

-- Removes the oldest beyond the limit; returns how many of them were still needed.
local function trimToLength()
  local length = redis.call("XLEN", stream)
  local excess = math.min(length - most, mostRemoved)
  if excess <= 0 then
    return 0
  end
  local first = firstNeeded()
  local unread = excess
  if first then
    unread = 0
    for _, entry in ipairs(redis.call("XRANGE", stream, "-", "+", "COUNT", excess)) do
      if not isBefore(entry[1], first) then
        unread = unread + 1
      end
    end
  end
  redis.call("XTRIM", stream, "MAXLEN", "=", length - excess)
  return unread
end

if redis.call("EXISTS", stream) == 1 and mode == "acknowledged" then
  local first = firstNeeded()
  if first then
    redis.call("XTRIM", stream, "MINID", "=", first)
  end
  if redis.call("XLEN", stream) >= most then
    return { 0, 0 }
  end
end

local added, at = 0, 3
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call("XADD", stream, "*", unpack(ARGV, at + 1, at + count))
  at = at + 1 + count
  added = added + 1
end

if mode == "length" then
  return { added, trimToLength() }
end
return { added, 0 }
