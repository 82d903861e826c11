-- The log: what must outlive Redis is written to the stream of its tag, in the call that decides it.
-- `log` is the stream; `logseq` a hash: seq, the number of the newest record; epoch, a name that a tag has from its seeding
-- to its next loss; fenced, while what was lost is being put back.

-- Whether the tag has lost records, or has not been seeded: then nothing may be sold or written. `known` is the number
-- of the newest record that the caller has seen ('0' for none). The last two keys are `log` and `logseq`.
function lib.log_lost(keys, known)
  local state = redis.call('HMGET', keys[#keys], 'epoch', 'seq', 'fenced')
  return not state[1] or state[3] ~= false or tonumber(state[2] or '0') < tonumber(known)
end

-- Appends a record and returns its number. `body` is JSON; `at` is the record's time, by default the present. The last two
-- keys are `log` and `logseq`.
function lib.log_append(keys, kind, body, at)
  local seq = redis.call('HINCRBY', keys[#keys], 'seq', 1)
  redis.call('XADD', keys[#keys - 1], '*', 's', int(seq), 'k', kind, 't', int(at or now_ms()), 'b', body)
  return seq
end

-- args: the id of the record after which to begin, how many at the most
-- -> { epoch or '', seq, fenced or '', id of the newest record or '', records: { id, { field, value, ... } } }
function fn.log_read(keys, args)
  local state = redis.call('HMGET', keys[#keys], 'epoch', 'seq', 'fenced')
  local newest = redis.call('XREVRANGE', keys[#keys - 1], '+', '-', 'COUNT', 1)[1]
  local records = redis.call('XRANGE', keys[#keys - 1], '(' .. args[1], '+', 'COUNT', tonumber(args[2]))
  return { state[1] or '', state[2] or '0', state[3] or '', newest and newest[1] or '', records }
end
flags.log_read = { 'no-writes' }
