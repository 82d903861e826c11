-- Identity: users, keys, sessions, groups as documents (the text of their files), changed by compare-and-set.
-- A document is a hash: v, its version (the id of the request that wrote it); t, its text; m, a mark for those who use it.
-- `index` is a sorted set of the names of one kind in one tag, all with the score 0. `rev` changes with it.
-- All replies begin with OK, CONFLICT (nothing was changed) or LOST (see log.lua; nothing was changed or read).

local done_ms = 120000

local function conflicts(key, expected)
  if expected == 'any' then return false end
  local version = redis.call('HGET', key, 'v')
  if expected == 'new' then return version ~= false end
  return version ~= expected
end

-- keys: document, log, logseq; args: number of the newest record known
-- -> OK, now, then version, text, mark if there is such a document
function fn.identity_get(keys, args)
  if lib.log_lost(keys, args[1]) then return { 'LOST' } end
  local doc = redis.call('HMGET', keys[1], 'v', 't', 'm')
  if not doc[1] then return { 'OK', int(now_ms()) } end
  return { 'OK', int(now_ms()), doc[1], doc[2] or '', doc[3] or '' }
end
flags.identity_get = { 'no-writes' }

-- keys: document, index, rev, done, log, logseq
-- args: request id, number of the newest record known, name, 'new' | 'any' | version, 'put' | 'delete', text, mark,
--   record for the log, revision of the index that must be the current one, 'any', or '' where it stands for names alone
-- -> OK, number and time of the record
function fn.identity_put(keys, args)
  local id, known, name, expected, verb, text, mark, record, revision = unpack(args)
  local done = redis.call('GET', keys[4])
  if done then return { 'OK', done } end
  if lib.log_lost(keys, known) then return { 'LOST' } end
  if conflicts(keys[1], expected) then return { 'CONFLICT' } end
  if revision ~= '' and revision ~= 'any' and (redis.call('GET', keys[3]) or '0') ~= revision then
    return { 'CONFLICT' }
  end
  local changed
  if verb == 'delete' then
    redis.call('DEL', keys[1])
    changed = redis.call('ZREM', keys[2], name)
  else
    redis.call('HSET', keys[1], 'v', id, 't', text, 'm', mark)
    changed = redis.call('ZADD', keys[2], 0, name)
  end
  if changed == 1 or revision ~= '' then redis.call('SET', keys[3], id) end
  local at = int(now_ms())
  local written = int(lib.log_append(keys, 'doc', record, at)) .. ' ' .. at
  redis.call('SET', keys[4], written, 'PX', done_ms)
  return { 'OK', written }
end

-- Moves a document to another kind of the same tag.
-- keys: document, its index, its rev, new document, its index, done, log, logseq
-- args: request id, number of the newest record known, name, version, new name, record that deletes, record that creates
function fn.identity_move(keys, args)
  local id, known, name, expected, target, deleted, created = unpack(args)
  local done = redis.call('GET', keys[6])
  if done then return { 'OK', done } end
  if lib.log_lost(keys, known) then return { 'LOST' } end
  if conflicts(keys[1], expected) then return { 'CONFLICT' } end
  redis.call('HSET', keys[4], 'v', id, 't', redis.call('HGET', keys[1], 't'), 'm', '')
  redis.call('ZADD', keys[5], 0, target)
  redis.call('DEL', keys[1])
  redis.call('ZREM', keys[2], name)
  redis.call('SET', keys[3], id)
  lib.log_append(keys, 'doc', created)
  local seq = int(lib.log_append(keys, 'doc', deleted))
  redis.call('SET', keys[6], seq, 'PX', done_ms)
  return { 'OK', seq }
end

-- Writes a document as it was before a loss, while its tag is fenced. Not logged: the log has it.
-- keys: document, index, rev; args: request id, name, 'put' | 'delete', text
function fn.identity_restore(keys, args)
  local id, name, verb, text = unpack(args)
  if verb == 'delete' then
    redis.call('DEL', keys[1])
    redis.call('ZREM', keys[2], name)
  else
    redis.call('HSET', keys[1], 'v', id, 't', text, 'm', '')
    redis.call('ZADD', keys[2], 0, name)
  end
  redis.call('SET', keys[3], id)
  return { 'OK' }
end

-- A page of the names of a kind in one tag, ordered.
-- keys: index, rev, log, logseq
-- args: number of the newest record known, last name of the previous page, how many at most, revision known ('' none)
-- -> OK, revision, names; or SAME if the revision is the known one
function fn.identity_names(keys, args)
  local known, after, limit, revision = unpack(args)
  if lib.log_lost(keys, known) then return { 'LOST' } end
  local current = redis.call('GET', keys[2]) or '0'
  if revision == current then return { 'SAME' } end
  return { 'OK', current, redis.call('ZRANGEBYLEX', keys[1], '(' .. after, '+', 'LIMIT', 0, tonumber(limit)) }
end
flags.identity_names = { 'no-writes' }

-- Whose a session, a refresh family or an API key is. keys: pointer, log, logseq; args: newest record known
-- -> OK, user or ''
function fn.identity_pointer(keys, args)
  if lib.log_lost(keys, args[1]) then return { 'LOST' } end
  return { 'OK', redis.call('GET', keys[1]) or '' }
end
flags.identity_pointer = { 'no-writes' }

-- When keys of a user were last used. keys: hash of the user; args: key id, ms since the epoch, and so on
-- -> key id, ms since the epoch, and so on
function fn.identity_used(keys, args)
  for at = 1, #args, 2 do
    local before = redis.call('HGET', keys[1], args[at])
    if not before or tonumber(before) < tonumber(args[at + 1]) then
      redis.call('HSET', keys[1], args[at], args[at + 1])
    end
  end
  return redis.call('HGETALL', keys[1])
end

-- From when on the nonces of a tag are known, in s since the epoch. keys: since; args: time or ''
function fn.nonce_open(keys, args)
  local now = math.floor((tonumber(args[1]) or now_ms()) / 1000)
  redis.call('SET', keys[1], int(now), 'NX')
  return 'OK'
end

-- Records a nonce of an API key. The nonces are a sorted set by the timestamp of their signature.
-- keys: nonces, the timestamp up to which they are forgotten, since, done
-- args: nonce, timestamp in s, how many are kept at most, for how many s a timestamp may be valid, time or ''
-- -> 1, or 0 if it was used before, or if that is no longer known
function fn.nonce_use(keys, args)
  local nonce, at, max, keep = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local done = redis.call('GET', keys[4])
  if done then return tonumber(done) end
  local now = math.floor((tonumber(args[5]) or now_ms()) / 1000)
  local since = tonumber(redis.call('GET', keys[3]) or '')
  -- All was lost; or the clock was ahead, and has been set back.
  if not since or now < since - keep then
    since = now
    redis.call('SET', keys[3], int(now))
  end
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', '(' .. int(now - keep))
  if at < since or at < now - keep or at > now + keep then return 0 end
  local floor = tonumber(redis.call('GET', keys[2]) or '')
  if floor and at <= floor or redis.call('ZSCORE', keys[1], nonce) then return 0 end
  redis.call('SET', keys[4], '1', 'PX', done_ms)
  redis.call('ZADD', keys[1], int(at), nonce)
  redis.call('PEXPIRE', keys[1], 2000 * keep)
  if redis.call('ZCARD', keys[1]) > max then
    local oldest = redis.call('ZPOPMIN', keys[1])
    redis.call('SET', keys[2], oldest[2], 'PX', 2000 * keep)
  end
  return 1
end
