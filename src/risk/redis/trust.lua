-- Trust: what is noted of each user, as the processes have it: `trust` is a hash USER -> 'number id record', where the
-- number grows with each change, and the id is that of the change; its field '' has the name of the hash's life: another one, or none, says that Redis has lost it.
-- `trustnew` is a sorted set of users, by a version that grows whenever the step of one changes; `trustlast` one by when
-- they were last active.
local most_users = 2000

local function newest(versions)
  local last = redis.call('ZREVRANGE', versions, 0, 0)[1]
  return last and tonumber(redis.call('ZSCORE', versions, last)) or 0
end

-- Replaces what is noted of a user, unless another process has done so since. Where there are too many, those are
-- forgotten who have been away longest.
-- keys: trust, trustnew, trustlast
-- args: user, number of the record that was read ('0': none), record, when last active in ms, 1 if its step is a new one,
-- name of the hash's life if it begins now, id of this change -> { 1, number } | { 0, number, record or '' }
function fn.trust_put(keys, args)
  local user, read, record, id = args[1], args[2], args[3], args[7]
  local known = redis.call('HGET', keys[1], user)
  local number, made_by, present = string.match(known or '', '^(%d+) (%S+) (.*)$')
  number = number or '0'
  local follows = int(tonumber(read) + 1)
  -- The call is repeated.
  if number == follows and made_by == id then return { 1, number } end
  if number ~= read then return { 0, number, present or '' } end
  redis.call('HSETNX', keys[1], '', args[6])
  if not known and redis.call('HLEN', keys[1]) > most_users then
    local oldest = redis.call('ZRANGE', keys[3], 0, most_users / 10)
    redis.call('HDEL', keys[1], unpack(oldest))
    redis.call('ZREM', keys[2], unpack(oldest))
    redis.call('ZREM', keys[3], unpack(oldest))
  end
  redis.call('HSET', keys[1], user, follows .. ' ' .. id .. ' ' .. record)
  redis.call('ZADD', keys[3], args[4], user)
  if args[5] == '1' or not known then redis.call('ZADD', keys[2], int(newest(keys[2]) + 1), user) end
  return { 1, follows }
end

-- keys: trust, trustnew; args: version
-- -> name of the hash's life or '', newest version, { user, 'number id record' } of each whose step has changed after the given one
function fn.trust_since(keys, args)
  local changed = {}
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', keys[2], '(' .. args[1], '+inf')) do
    changed[#changed + 1] = { user, redis.call('HGET', keys[1], user) or '' }
  end
  return { redis.call('HGET', keys[1], '') or '', int(newest(keys[2])), changed }
end
flags.trust_since = { 'no-writes' }

-- keys: trust -> flat list of users and 'number id record'
function fn.trust_all(keys)
  return redis.call('HGETALL', keys[1])
end
flags.trust_all = { 'no-writes' }

-- keys: trust; args: user -> 'number id record' or ''
function fn.trust_get(keys, args)
  return redis.call('HGET', keys[1], args[1]) or ''
end
flags.trust_get = { 'no-writes' }
