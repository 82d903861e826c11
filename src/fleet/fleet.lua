-- The fleet: who lives, who leads, and what all processes are to know.

-- Takes or renews a lease. Its term grows with each new holder: what is written under an older one can be refused.
-- keys: lease, counter of terms; args: holder, ms -> { 1 if it is the holder's, term, holder }
function fn.lease_take(keys, args)
  local holder, term = string.match(redis.call('GET', keys[1]) or '', '^(%S+) (%d+)$')
  if holder == args[1] then
    redis.call('PEXPIRE', keys[1], args[2])
    return { 1, term, holder }
  end
  if holder then return { 0, term, holder } end
  term = int(redis.call('INCR', keys[2]))
  redis.call('SET', keys[1], args[1] .. ' ' .. term, 'PX', args[2])
  return { 1, term, args[1] }
end

-- keys: lease; args: holder
function fn.lease_drop(keys, args)
  local holder = string.match(redis.call('GET', keys[1]) or '', '^(%S+) ')
  if holder ~= args[1] then return 0 end
  return redis.call('DEL', keys[1])
end

-- Notes that a process lives, and forgets those that have long been silent.
-- keys: facts, times; args: process, its facts, ms after which one is forgotten
function fn.fleet_beat(keys, args)
  local now = now_ms()
  redis.call('HSET', keys[1], args[1], args[2])
  redis.call('ZADD', keys[2], int(now), args[1])
  local silent = redis.call('ZRANGEBYSCORE', keys[2], '-inf', int(now - tonumber(args[3])), 'LIMIT', 0, 64)
  if #silent > 0 then
    redis.call('HDEL', keys[1], unpack(silent))
    redis.call('ZREM', keys[2], unpack(silent))
  end
  redis.call('PEXPIRE', keys[1], args[3])
  redis.call('PEXPIRE', keys[2], args[3])
  return 1
end

-- keys: facts, times; args: process
function fn.fleet_leave(keys, args)
  redis.call('HDEL', keys[1], args[1])
  return redis.call('ZREM', keys[2], args[1])
end

-- keys: facts, times -> { process, its facts, ms since it was seen }, the oldest first, 1000 at the most
function fn.fleet_list(keys)
  local now, reply = now_ms(), {}
  for _, id in ipairs(redis.call('ZRANGE', keys[2], 0, 999)) do
    local seen = tonumber(redis.call('ZSCORE', keys[2], id))
    reply[#reply + 1] = { id, redis.call('HGET', keys[1], id) or '', int(math.max(0, now - seen)) }
  end
  return reply
end
flags.fleet_list = { 'no-writes' }

-- The board: values by name, each with the version at which it was set. The field '' has the name of the board's life:
-- another one, or none, says that Redis has lost it.
local most_values = 10000

local function newest(versions)
  local last = redis.call('ZREVRANGE', versions, 0, 0)[1]
  return last and tonumber(redis.call('ZSCORE', versions, last)) or 0
end

-- Sets a value. keys: values, versions; args: name, value, which begins with an id of this change, 1 if only where there
-- is none, name of the board's life if it begins now -> version
function fn.board_put(keys, args)
  redis.call('HSETNX', keys[1], '', args[4])
  local known = redis.call('HGET', keys[1], args[1])
  if known and (known == args[2] or args[3] == '1') then return redis.call('ZSCORE', keys[2], args[1]) end
  if not known and redis.call('HLEN', keys[1]) >= most_values then
    return redis.error_reply('ERR the board has ' .. most_values .. ' values')
  end
  local version = int(newest(keys[2]) + 1)
  redis.call('HSET', keys[1], args[1], args[2])
  redis.call('ZADD', keys[2], version, args[1])
  return version
end

-- keys: values, versions; args: version -> { name of the board's life or '', newest version, { name, value } of each that
-- was set after the given one }
function fn.board_since(keys, args)
  local reply = {}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', keys[2], '(' .. args[1], '+inf')) do
    reply[#reply + 1] = { name, redis.call('HGET', keys[1], name) or '' }
  end
  return { redis.call('HGET', keys[1], '') or '', int(newest(keys[2])), reply }
end
flags.board_since = { 'no-writes' }
