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
--   record for the log, revision of the index that must be the current one ('' any)
-- -> OK, number of the record
function fn.identity_put(keys, args)
  local id, known, name, expected, verb, text, mark, record, revision = unpack(args)
  local done = redis.call('GET', keys[4])
  if done then return { 'OK', done } end
  if lib.log_lost(keys, known) then return { 'LOST' } end
  if conflicts(keys[1], expected) then return { 'CONFLICT' } end
  if revision ~= '' and (redis.call('GET', keys[3]) or '0') ~= revision then return { 'CONFLICT' } end
  local changed
  if verb == 'delete' then
    redis.call('DEL', keys[1])
    changed = redis.call('ZREM', keys[2], name)
  else
    redis.call('HSET', keys[1], 'v', id, 't', text, 'm', mark)
    changed = redis.call('ZADD', keys[2], 0, name)
  end
  -- Where the revision is checked, it stands for the texts as well as for the names.
  if changed == 1 or revision ~= '' then redis.call('SET', keys[3], id) end
  local seq = int(lib.log_append(keys, 'doc', record))
  redis.call('SET', keys[4], seq, 'PX', done_ms)
  return { 'OK', seq }
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
