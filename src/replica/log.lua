-- The log: what must outlive Redis is written to the stream of its tag, in the call that decides it.
-- `log` is the stream. `logseq` is a hash:
--   seq      the number of the newest record
--   epoch    a name that a tag has from its seeding to its next loss
--   before   the epochs before it, newest first, and `covered`: up to which number all records are in the accounts' state
--   fenced   `mend` while what was lost is put back; else the time in ms until which the tag is kept still for a copy
--   closing  the time in ms until which only what another tag has begun is ended here, before a copy
-- `mend` is a hash of those who put it back: claim:NODE, rec:IDENTITY, lease, since.
-- `readers` is a hash: NODE -> `when:id`, when it was last seen, and the record up to which it has all on disk.

local mend_ms = 600000

local function is_fenced(fenced)
  return fenced ~= false and fenced ~= '' and (fenced == 'mend' or tonumber(fenced) > now_ms())
end

-- Whether the tag has lost records, or has not been seeded: then nothing may be sold or written. `known` is the number
-- of the newest record that the caller has seen ('0' for none). `ends` says that the call ends what another tag has begun: a
-- group's part of a charge. The last two keys are `log` and `logseq`.
function lib.log_lost(keys, known, ends)
  local state = redis.call('HMGET', keys[#keys], 'epoch', 'seq', 'fenced', 'closing')
  if not ends and is_fenced(state[4]) then return true end
  return not state[1] or is_fenced(state[3]) or tonumber(state[2] or '0') < tonumber(known)
end

-- Appends a record and returns its number. `body` is JSON; `at` is the record's time, by default the present. The last two
-- keys are `log` and `logseq`.
function lib.log_append(keys, kind, body, at)
  local seq = redis.call('HINCRBY', keys[#keys], 'seq', 1)
  redis.call('XADD', keys[#keys - 1], '*', 's', int(seq), 'k', kind, 't', int(at or now_ms()), 'b', body)
  return seq
end

-- keys: log, logseq; args: the id of the record after which to begin, how many at the most
-- -> epoch, seq, fence or '', before, covered, id of the newest record, records: { id, { field, value, ... } }
function fn.log_read(keys, args)
  local state = redis.call('HMGET', keys[2], 'epoch', 'seq', 'fenced', 'before', 'covered', 'closing')
  local newest = redis.call('XREVRANGE', keys[1], '+', '-', 'COUNT', 1)[1]
  local records = redis.call('XRANGE', keys[1], '(' .. args[1], '+', 'COUNT', tonumber(args[2]))
  local fence = is_fenced(state[3]) and state[3] or is_fenced(state[6]) and state[6] or ''
  return { state[1] or '', state[2] or '0', fence, state[4] or '', state[5] or '0', newest and newest[1] or '', records }
end
flags.log_read = { 'no-writes' }

-- Says up to which record a node has all on disk, and trims what all nodes have that were seen of late.
-- keys: log, readers; args: node, id, for how long a node counts after it was seen, in ms
function fn.log_seen(keys, args)
  local now, first = now_ms(), args[2]
  redis.call('HSET', keys[2], args[1], int(now) .. ':' .. args[2])
  local function parts(id)
    return tonumber(string.match(id, '^%d+')), tonumber(string.match(id, '%d+$'))
  end
  local all = redis.call('HGETALL', keys[2])
  for i = 1, #all, 2 do
    local seen, id = string.match(all[i + 1], '^(%d+):(.*)$')
    if now - tonumber(seen) > tonumber(args[3]) then
      redis.call('HDEL', keys[2], all[i])
    else
      local a, b = parts(id)
      local c, d = parts(first)
      if a < c or (a == c and b < d) then first = id end
    end
  end
  return redis.call('XTRIM', keys[1], 'MINID', first)
end
flags.log_seen = { 'allow-oom' }

-- Keeps the tag still: nobody sells or writes. keys: mend, logseq; args: 'mend', or for how many ms
-- -> 1, or 0 where it is kept still already
function fn.log_fence(keys, args)
  local now = now_ms()
  local fenced = redis.call('HGET', keys[2], 'fenced')
  if fenced == 'mend' or (args[1] ~= 'mend' and is_fenced(fenced)) then return 0 end
  if args[1] ~= 'mend' then
    redis.call('HSET', keys[2], 'fenced', int(now + tonumber(args[1])))
    return 1
  end
  redis.call('HSET', keys[2], 'fenced', 'mend')
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], 'since', int(now))
  redis.call('PEXPIRE', keys[1], mend_ms)
  return 1
end
flags.log_fence = { 'allow-oom' }

-- Begins nothing more, for a while: a copy follows. keys: logseq; args: for how many ms
function fn.log_close(keys, args)
  redis.call('HSET', keys[1], 'closing', int(now_ms() + tonumber(args[1])))
  return 1
end
flags.log_close = { 'allow-oom' }

-- Ends the stillness of a copy. keys: mend, logseq
function fn.log_release(keys)
  redis.call('HDEL', keys[2], 'closing')
  if redis.call('HGET', keys[2], 'fenced') ~= 'mend' then redis.call('HDEL', keys[2], 'fenced') end
  return 1
end
flags.log_release = { 'allow-oom' }

-- Says what a node has, of all that may be lost. keys: mend, logseq
-- args: node, number up to which it has all, number of the newest that it knows, how much it has, then identity, record as
-- JSON, and so on -> 1, or 0 where nothing is to be put back any more
function fn.log_claim(keys, args)
  if redis.call('HGET', keys[2], 'fenced') ~= 'mend' then return 0 end
  redis.call('HSET', keys[1], 'claim:' .. args[1], table.concat({ args[2], args[3], args[4] }, ':'))
  for i = 5, #args, 2 do redis.call('HSETNX', keys[1], 'rec:' .. args[i], args[i + 1]) end
  redis.call('HSETNX', keys[1], 'since', int(now_ms()))
  redis.call('PEXPIRE', keys[1], mend_ms)
  return 1
end
flags.log_claim = { 'allow-oom' }

-- Whether this node is to put back what was lost: after a while for all to come, the one that has most; if that does
-- not, another.
-- keys: mend, logseq; args: node, the while in ms, for how long it has the lease in ms
-- -> { 'OVER' } | { 'WAIT' } | { 'GO', flat list of the hash `mend` }
function fn.log_lead(keys, args)
  if redis.call('HGET', keys[2], 'fenced') ~= 'mend' then return { 'OVER' } end
  local node, grace, lease = args[1], tonumber(args[2]), tonumber(args[3])
  local now = now_ms()
  local since, holder = unpack(redis.call('HMGET', keys[1], 'since', 'lease'))
  local age = now - tonumber(since or now)
  local all = redis.call('HGETALL', keys[1])
  local best, rank
  for i = 1, #all, 2 do
    local name = string.match(all[i], '^claim:(.*)$')
    if name then
      local has, _, weight = string.match(all[i + 1], '^(%d+):(%d+):(%d+)$')
      local mine = { tonumber(has), tonumber(weight) }
      if not best or mine[1] > rank[1] or (mine[1] == rank[1] and mine[2] > rank[2])
        or (mine[1] == rank[1] and mine[2] == rank[2] and name < best) then
        best, rank = name, mine
      end
    end
  end
  if age < grace or (best ~= node and age < grace + lease) then return { 'WAIT' } end
  if holder then
    local who, ends = string.match(holder, '^(.*)@(%d+)$')
    if who ~= node and tonumber(ends) > now then return { 'WAIT' } end
  end
  redis.call('HSET', keys[1], 'lease', node .. '@' .. int(now + lease))
  return { 'GO', all }
end
flags.log_lead = { 'allow-oom' }

-- Whether a node is the one that puts back what was lost.
function lib.log_leads(mend, node)
  local holder = redis.call('HGET', mend, 'lease')
  return holder ~= false and string.match(holder, '^(.*)@') == node
end

-- Puts records back, with numbers above all that anybody knows. keys: mend, log, logseq
-- args: node, the highest number that anybody knows, then kind, time, number that it had, body, and so on
-- -> the number of the newest record, or 0 where the node no longer leads
function fn.log_put_back(keys, args)
  if not lib.log_leads(keys[1], args[1]) then return 0 end
  local seq = tonumber(redis.call('HGET', keys[3], 'seq') or '0')
  if seq < tonumber(args[2]) then redis.call('HSET', keys[3], 'seq', args[2]) end
  for i = 3, #args, 4 do
    seq = redis.call('HINCRBY', keys[3], 'seq', 1)
    redis.call('XADD', keys[2], '*', 's', int(seq), 'k', args[i], 't', args[i + 1], 'b', args[i + 3], 'o', args[i + 2])
  end
  return tonumber(redis.call('HGET', keys[3], 'seq') or '0')
end
flags.log_put_back = { 'allow-oom' }

-- Says that all records are back, so that accounts that others' records change can be written. keys: mend
-- args: node, lease in ms
function fn.log_renew(keys, args)
  if not lib.log_leads(keys[1], args[1]) then return 0 end
  redis.call('HSET', keys[1], 'merged', '1', 'lease', args[1] .. '@' .. int(now_ms() + tonumber(args[2])))
  return 1
end
flags.log_renew = { 'allow-oom' }

-- Whether a tag's records are all in its log: it is whole, or only its accounts are still to be written.
-- keys: mend, logseq
function fn.log_merged(keys)
  local state = redis.call('HMGET', keys[2], 'epoch', 'fenced')
  if state[1] and state[2] ~= 'mend' then return 1 end
  return redis.call('HGET', keys[1], 'merged') and 1 or 0
end
flags.log_merged = { 'no-writes' }

-- Opens the tag. keys: mend, logseq
-- args: node, epoch, the epochs before, newest first, or '', up to where any node had all records, the number of the newest record now
function fn.log_open(keys, args)
  if not lib.log_leads(keys[1], args[1]) then return 0 end
  local state = redis.call('HMGET', keys[2], 'epoch', 'before')
  -- Those that the node knows as well: Redis may be back in a state from before some of them.
  local names, has = {}, {}
  for name in string.gmatch(args[3] .. ' ' .. (state[1] or '') .. ' ' .. (state[2] or ''), '%S+') do
    if not has[name] and #names < 12 then names[#names + 1] = name end
    has[name] = true
  end
  local before = table.concat(names, ' ')
  redis.call('HSET', keys[2], 'epoch', args[2], 'before', before, 'covered', args[4])
  if tonumber(redis.call('HGET', keys[2], 'seq') or '0') < tonumber(args[5]) then
    redis.call('HSET', keys[2], 'seq', args[5])
  end
  redis.call('HDEL', keys[2], 'fenced')
  redis.call('DEL', keys[1])
  return 1
end
flags.log_open = { 'allow-oom' }
