-- The ledger's decisions: what an account has used, and what running requests hold of it.
--
-- An account (`acct`), and each API key of one (`acctkey`), is a hash; its fields are
--   PER:start, PER:end          the window of each period in which something was counted last, in ms; the end may be `inf`
--   PER:METRIC[:CURRENCY]       what was used in it
--   reserved:METRIC[:CURRENCY]  what running requests may still be charged, in whichever window that happens
--   latest                      the time of the latest charge
--   unsure                      how many reservations are `asked`
-- A reservation (`hold`) is a hash, from reserve on until a while after settle:
--   state                       `asked`: as `reserved`, but a group or user that was asked at the same time may yet
--                               refuse; `reserved`, `committed` or `done`. A lapsed one is gone, or committed and holds
--                               nothing
--   held:METRIC[:CURRENCY]      its part of what the account has reserved
--   at, first, final            the time of the charge, the first one, the final one
-- `leases` is a sorted set: until when a hold is kept without a word from its node.
--
-- Amounts are safe integers, 0 to 2^53 - 1, and come and go as decimal text. In between they are doubles, which is
-- exact: the difference of two is, and a sum is either below 2^53, or rounded to something that is not, and then cut to
-- 2^53 - 1. For the same reason a comparison with a limit is right: rounding never moves a sum across 2^53. This is the
-- arithmetic of the ledger in memory to the bit, and one HSET writes what would be a dozen HINCRBY.
--
-- Each function gets its arguments as one JSON text. They share
--   windows  { PER: [start, end] } of the node's time; used where a window of the account is over
--   known    the number of the tag's newest record that the node has seen
--   begun    whether the node knows that something was counted for the account
-- and may answer { 'LOST' }: the tag, or the account, has lost what the node knows of; { 'STALE', time }: the windows are
-- not those of this time; or { 'DONE' }.

local most = 9007199254740991

-- How long a settled hold is remembered, for calls that are repeated, and a committed one after it has lapsed: for a
-- settlement that comes late. In ms.
local lapsed_ms = 3600000

-- An integer as text: a third of the cost of `int`, which also rounds.
local function text(n)
  return string.format('%d', n)
end

local function time_of(value)
  if value == 'inf' then return math.huge end
  return tonumber(value)
end

-- A hash as a table, with the fields that have changed.
local function load(key)
  local flat = redis.call('HGETALL', key)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return { key = key, fields = fields, changed = {} }
end

local function put(hash, field, value)
  if hash.fields[field] == value then return end
  hash.fields[field] = value
  hash.changed[field] = true
end

local function save(hash)
  local command = { 'HSET', hash.key }
  for field in pairs(hash.changed) do
    command[#command + 1] = field
    command[#command + 1] = hash.fields[field]
  end
  if #command > 2 then redis.call(unpack(command)) end
  hash.changed = {}
end

local function amount(hash, field)
  return tonumber(hash.fields[field] or '0')
end

local function field_of(prefix, metric, currency)
  if metric == 'cost' then return prefix .. ':cost:' .. (currency or '') end
  return prefix .. ':' .. metric
end

-- Adds parts { ['METRIC[:CURRENCY]'] = number } to the fields of a prefix. Stops at both ends, as memory's amounts do.
local function add(hash, prefix, parts, sign)
  for name, part in pairs(parts) do
    if part ~= 0 then
      local field = prefix .. ':' .. name
      local sum = amount(hash, field) + sign * part
      if sum < 0 then sum = 0 elseif sum > most then sum = most end
      put(hash, field, text(sum))
    end
  end
end

-- What is to be added where one charge takes the place of another.
local function difference(final, first)
  local parts = {}
  for name, part in pairs(final) do parts[name] = part - (first[name] or 0) end
  for name, part in pairs(first) do if not final[name] then parts[name] = -part end end
  return parts
end

local function number(digits)
  if type(digits) ~= 'string' or not string.find(digits, '^%d+$') or #digits > 16 then return nil end
  local value = tonumber(digits)
  return value <= most and value or nil
end

-- A charge { METRIC: amount, currency } as parts; nil if it is none.
local function parts_of(charge)
  local parts = {}
  for metric, digits in pairs(charge) do
    if metric ~= 'currency' then
      local value = number(digits)
      if not value then return nil end
      parts[metric == 'cost' and 'cost:' .. charge.currency or metric] = value
    end
  end
  return parts
end

-- What a hash has in the fields of a prefix, as parts.
local function parts_in(hash, prefix)
  local parts = {}
  local start = prefix .. ':'
  for field, digits in pairs(hash.fields) do
    if string.sub(field, 1, #start) == start then parts[string.sub(field, #start + 1)] = tonumber(digits) end
  end
  return parts
end

local function refused()
  return redis.error_reply('ERR not an amount')
end

-- Sets the time for reading, as PeriodCounts.lookAt: windows that are over look empty, and have the bounds that the node
-- passed. If a clock has stepped back, the time is the start of the newest window. Where the rules of periods have
-- changed, a running window gets its new bounds. Returns the effective time, and whether the passed windows are
-- missing.
local function look(counts, at, windows)
  local now = at
  for per in pairs(windows) do now = math.max(now, time_of(counts.fields[per .. ':start'] or '0')) end
  counts.over = {}
  for per, bounds in pairs(windows) do
    local ends = counts.fields[per .. ':end']
    local fits = time_of(bounds[1]) <= now and now < time_of(bounds[2])
    if not ends or now >= time_of(ends) then
      if not fits then return now, true end
      counts.over[per] = bounds
    elseif fits and ends ~= bounds[2] then
      put(counts, per .. ':start', bounds[1])
      put(counts, per .. ':end', bounds[2])
    end
  end
  return now, false
end

-- Starts the windows of the time that look() was given: for what is counted next.
local function advance(counts)
  for per, bounds in pairs(counts.over) do
    for name in pairs(parts_in(counts, per)) do put(counts, per .. ':' .. name, '0') end
    put(counts, per .. ':start', bounds[1])
    put(counts, per .. ':end', bounds[2])
  end
  counts.over = {}
end

local function used(counts, limit)
  if counts.over[limit.per] then return 0 end
  return amount(counts, field_of(limit.per, limit.metric, limit.currency))
end

local function reserved(counts, limit)
  return amount(counts, field_of('reserved', limit.metric, limit.currency))
end

-- The account, and the counts of the request's API key if it has one, as of this time.
local function open(keys, args, at)
  local account = load(keys[1])
  local both = { account, windows = args.windows }
  local now, stale = look(account, at, args.windows)
  if args.key then
    both[2] = load(keys[2])
    local _, key_stale = look(both[2], now, args.windows)
    stale = stale or key_stale
  end
  both.now = now
  if stale then return nil, { 'STALE', text(now) } end
  if args.begun and not account.fields['total:end'] then return nil, { 'LOST' } end
  return both
end

local function counts_of(both, limit)
  return limit.key and both[2] or both[1]
end

local function each(both, work, ...)
  for i = 1, #both do work(both[i], ...) end
end

-- used, reserved and end of each limit, behind what `reply` already has.
local function with_buckets(reply, both, limits)
  for i = 1, #limits do
    local limit = limits[i]
    local counts = counts_of(both, limit)
    local over = counts.over[limit.per]
    reply[#reply + 1] = text(used(counts, limit))
    reply[#reply + 1] = text(reserved(counts, limit))
    reply[#reply + 1] = over and over[2] or counts.fields[limit.per .. ':end']
  end
  return reply
end

-- { 'FULL', its place, whether that may be different soon, bucket } for the first limit without room; nil if all have
-- room. A limit in another currency always has.
local function full(both, limits, charge)
  for i = 1, #limits do
    local limit = limits[i]
    local counts = counts_of(both, limit)
    local concerned = limit.metric ~= 'cost' or limit.currency == charge.currency
    local taken = used(counts, limit) + reserved(counts, limit)
    if concerned and taken + tonumber(charge[limit.metric]) > tonumber(limit.max) then
      local unsure = amount(both[1], 'unsure') > 0 and '1' or '0'
      return with_buckets({ 'FULL', i - 1, unsure }, both, { limit })
    end
  end
  return nil
end

local function extend(keys, args, now)
  redis.call('ZADD', keys[4], text(now + args.lease), args.member)
end

-- The rest of what a hold has after `first` has been taken from it.
local function rest_of(held, first)
  local rest = {}
  for name, part in pairs(held) do rest[name] = math.max(0, part - (first[name] or 0)) end
  return rest
end

-- Gives back what a hold has, and holds something else instead.
local function hold_instead(both, hold, parts)
  local held = parts_in(hold, 'held')
  each(both, add, 'reserved', held, -1)
  for name in pairs(held) do put(hold, 'held:' .. name, '0') end
  each(both, add, 'reserved', parts, 1)
  add(hold, 'held', parts, 1)
end

-- keys: acct, acctkey, hold, leases, log, logseq
-- args: limits, bound, lease, member, key; pair: another account is asked at the same time, and either
--       ledger_confirm or ledger_settle follows
-- -> { 'OK', buckets } | { 'FULL', ... } | LOST | STALE | DONE
function fn.ledger_reserve(keys, args)
  local args = cjson.decode(args[1])
  if lib.log_lost(keys, args.known) then return { 'LOST' } end
  local bound = parts_of(args.bound)
  if not bound then return refused() end
  local now = now_ms()
  local both, problem = open(keys, args, now)
  if not both then return problem end
  local hold = load(keys[3])
  if hold.fields.state == 'done' then return { 'DONE' } end
  if not hold.fields.state then
    local blocking = full(both, args.limits, args.bound)
    if blocking then return blocking end
    put(hold, 'state', args.pair and 'asked' or 'reserved')
    if args.pair then put(both[1], 'unsure', text(amount(both[1], 'unsure') + 1)) end
    hold_instead(both, hold, bound)
    each(both, save)
    save(hold)
    extend(keys, args, now)
  end
  return with_buckets({ 'OK' }, both, args.limits)
end

-- It is certain now what becomes of a hold.
local function decided(both, hold)
  if hold.fields.state == 'asked' then put(both[1], 'unsure', text(math.max(0, amount(both[1], 'unsure') - 1))) end
end

-- All accounts that were asked have agreed.
-- keys: acct, acctkey, hold, leases
function fn.ledger_confirm(keys)
  local hold = load(keys[3])
  if hold.fields.state ~= 'asked' then return 0 end
  local account = load(keys[1])
  decided({ account }, hold)
  put(hold, 'state', 'reserved')
  save(account)
  save(hold)
  return 1
end
flags.ledger_confirm = { 'allow-oom' }

-- Makes the first charge: counts it, and takes it from what is held. `at` is the effective time.
local function charge(both, hold, first, at, first_text)
  each(both, advance)
  for i = 1, #both do
    for per in pairs(both.windows) do add(both[i], per, first, 1) end
  end
  hold_instead(both, hold, rest_of(parts_in(hold, 'held'), first))
  decided(both, hold)
  put(hold, 'state', 'committed')
  put(hold, 'at', text(at))
  put(hold, 'first', first_text)
  put(both[1], 'latest', text(math.max(at, tonumber(both[1].fields.latest or '0'))))
end

-- The time of a charge: that of another account (`at`), or so long ago (`ago`).
local function charged_at(args, now)
  return args.at and tonumber(args.at) or now - math.floor(args.ago or 0)
end

local function log_with_at(keys, kind, at, body)
  if body == '' then return lib.log_append(keys, 'mark', '{}') end
  return lib.log_append(keys, kind, '{"at":' .. text(at) .. ',' .. body)
end

-- keys: as ledger_reserve
-- args: first, body, key, limits; at or ago
-- -> { 'OK', at, number of the record or '', time, buckets } | LOST | STALE | DONE
function fn.ledger_commit(keys, args)
  local args = cjson.decode(args[1])
  if lib.log_lost(keys, args.known) then return { 'LOST' } end
  local first = parts_of(args.first)
  if not first then return refused() end
  local now = now_ms()
  local both, problem = open(keys, args, charged_at(args, now))
  if not both then return problem end
  local hold = load(keys[3])
  local state = hold.fields.state
  if state == 'done' then return { 'DONE' } end
  local seq = hold.fields.seq or ''
  if state ~= 'committed' then
    charge(both, hold, first, both.now, cjson.encode(args.first))
    each(both, save)
    seq = text(log_with_at(keys, 'charge', both.now, args.body))
    put(hold, 'seq', seq)
    save(hold)
    if not state then redis.call('PEXPIRE', keys[3], lapsed_ms) end
  end
  return with_buckets({ 'OK', hold.fields.at, seq, text(now) }, both, args.limits)
end
flags.ledger_commit = { 'allow-oom' }

-- Makes a hold have so much in all, if the limits have room for `extra`; without `extra` in any case.
-- keys: as ledger_reserve
-- args: held { 'METRIC[:CURRENCY]': amount }, extra, limits, lease, member, key
-- -> { 'OK' } | { 'FULL', ... } | LOST | STALE | DONE
function fn.ledger_grow(keys, args)
  local args = cjson.decode(args[1])
  if lib.log_lost(keys, args.known) then return { 'LOST' } end
  local target = {}
  for name, digits in pairs(args.held) do
    target[name] = number(digits)
    if not target[name] then return refused() end
  end
  if args.extra and not parts_of(args.extra) then return refused() end
  local now = now_ms()
  local both, problem = open(keys, args, now)
  if not both then return problem end
  local hold = load(keys[3])
  if hold.fields.state == 'done' then return { 'DONE' } end
  local same = true
  for name, part in pairs(target) do same = same and amount(hold, 'held:' .. name) == part end
  if same then return { 'OK' } end
  local blocking = args.extra and full(both, args.limits, args.extra)
  if blocking then return blocking end
  hold_instead(both, hold, target)
  if not hold.fields.state then put(hold, 'state', 'reserved') end
  each(both, save)
  save(hold)
  redis.call('PERSIST', keys[3])
  extend(keys, args, now)
  return { 'OK' }
end

-- Replaces a charge with another, in the windows that contain its time.
local function replace(counts, windows, at, first, final)
  local parts = difference(final, first)
  for per in pairs(windows) do
    local from, to = counts.fields[per .. ':start'], counts.fields[per .. ':end']
    if from and at >= time_of(from) and at < time_of(to) then
      add(counts, per, parts, 1)
    end
  end
end

-- Releases a hold and, with `final`, replaces the first charge with the final one. The first charge is that of the hold;
-- else `charged` { at, first }, which an earlier answer has told the node; else, with `first`, it is made now.
-- keys: as ledger_reserve
-- args: limits, member, key, keep (ms); final, body; charged; first, ago or at, charge_body; shared: a group's part may
--       ask what became of it; fresh: it is certain that the mark of an earlier call would still be here
-- -> { 'OK', time, at or '', number of the charge's record or '', number of the settlement's or '', buckets }
--    | LOST | STALE | DONE: it was settled before | GONE: that, or what it is about was lost
function fn.ledger_settle(keys, args)
  local args = cjson.decode(args[1])
  if lib.log_lost(keys, args.known) then return { 'LOST' } end
  local hold = load(keys[3])
  local state = hold.fields.state
  if state == 'done' then return { 'DONE' } end
  if args.final and not state and not args.fresh then return { 'GONE' } end
  local now = now_ms()
  local final = args.final and parts_of(args.final)
  local first_text = state == 'committed' and hold.fields.first
    or args.charged and cjson.encode(args.charged.first) or args.first and cjson.encode(args.first)
  local first = first_text and parts_of(cjson.decode(first_text))
  if (args.final and not final) or (first_text and not first) then return refused() end
  local both, problem = open(keys, args, now)
  if not both then return problem end

  local reply = { 'OK', text(now), '', '', '' }
  local at = state == 'committed' and tonumber(hold.fields.at) or args.charged and tonumber(args.charged.at)
  if final and first and not at then
    -- Where it was made in windows that are not those of now, it counts in those of now.
    both = open(keys, args, charged_at(args, now)) or both
    at = both.now
    charge(both, hold, first, at, first_text)
    reply[4] = text(log_with_at(keys, 'charge', at, args.charge_body))
  end
  decided(both, hold)
  hold_instead(both, hold, {})
  redis.call('DEL', keys[3])
  if final and at then
    each(both, replace, args.windows, at, first, final)
    reply[3] = text(at)
    reply[5] = text(log_with_at(keys, 'settle', at, args.body))
  end
  redis.call('HSET', keys[3], 'state', 'done')
  if args.shared and final and at then
    redis.call('HSET', keys[3], 'at', text(at), 'first', first_text, 'final', cjson.encode(args.final))
  end
  redis.call('PEXPIRE', keys[3], args.keep)
  each(both, save)
  redis.call('ZREM', keys[4], args.member)
  each(both, look, now, args.windows)
  return with_buckets(reply, both, args.limits)
end
flags.ledger_settle = { 'allow-oom' }

-- The buckets of limits of one account, and of one of its API keys.
-- keys: acct, acctkey, log, logseq
-- -> { 'OK', buckets } | LOST | STALE
function fn.ledger_buckets(keys, args)
  local args = cjson.decode(args[1])
  if lib.log_lost(keys, args.known) then return { 'LOST' } end
  local both, problem = open(keys, args, now_ms())
  if not both then return problem end
  return with_buckets({ 'OK' }, both, args.limits)
end
flags.ledger_buckets = { 'no-writes' }

-- A change by hand: `added` and `taken` in all running windows, or the restart of the window `per`, one ms later than
-- all charges made so far.
-- keys: acct, acct, mark, log, logseq
-- args: added, taken | per; body, keep
-- -> { 'OK', number of the record, time } | LOST | STALE
function fn.ledger_change(keys, args)
  local args = cjson.decode(args[1])
  if lib.log_lost(keys, args.known) then return { 'LOST' } end
  local done = redis.call('HMGET', keys[3], 'seq', 'time', 'at')
  if done[1] then return { 'OK', done[1], done[2], done[3] } end
  local added, taken = args.added and parts_of(args.added), args.taken and parts_of(args.taken)
  if not args.per and not (added and taken) then return refused() end
  local account = load(keys[1])
  local now = now_ms()
  local at = now
  if args.per then at = math.max(at, tonumber(account.fields.latest or '0')) end
  local both, problem = open(keys, args, at)
  if not both then return problem end
  account, at = both[1], both.now
  advance(account)
  if args.per then
    local ends = account.fields[args.per .. ':end']
    for name in pairs(parts_in(account, args.per)) do put(account, args.per .. ':' .. name, '0') end
    put(account, args.per .. ':start', text(math.min(at + 1, time_of(ends) - 1)))
    put(account, args.per .. ':end', ends)
  else
    for per in pairs(args.windows) do
      add(account, per, added, 1)
      add(account, per, taken, -1)
    end
  end
  save(account)
  local kind = args.per and 'reset' or 'adjust'
  local seq = text(log_with_at(keys, kind, at, args.body))
  redis.call('HSET', keys[3], 'seq', seq, 'time', text(now), 'at', text(at))
  redis.call('PEXPIRE', keys[3], args.keep)
  return { 'OK', seq, text(now), text(at) }
end
flags.ledger_change = { 'allow-oom' }

-- Extends the leases of holds that are still held.
-- keys: leases; args: lease, members
function fn.ledger_renew(keys, args)
  local ends = text(now_ms() + tonumber(args[1]))
  local command = { 'ZADD', keys[1], 'XX' }
  for i = 2, #args do
    command[#command + 1] = ends
    command[#command + 1] = args[i]
  end
  redis.call(unpack(command))
  return 1
end
flags.ledger_renew = { 'allow-oom' }

-- Holds whose lease is over. None for the time of a lease after nobody has asked for half of one: then Redis was away,
-- or all nodes were, and the live ones have to say first what is theirs.
-- keys: leases, reaping; args: lease, how many at the most
function fn.ledger_due(keys, args)
  local now, lease = now_ms(), tonumber(args[1])
  local asked = redis.call('HMGET', keys[2], 'asked', 'from')
  local from = tonumber(asked[2] or '0')
  if asked[1] and now - tonumber(asked[1]) > lease / 2 then from = now + lease end
  redis.call('HSET', keys[2], 'asked', text(now), 'from', text(from))
  if now < from then return {} end
  return redis.call('ZRANGEBYSCORE', keys[1], '-inf', text(now), 'LIMIT', 0, tonumber(args[2]))
end
flags.ledger_due = { 'allow-oom' }

-- What became of a hold. keys: hold; -> { state or '', at, first, final }
function fn.ledger_peek(keys)
  local fields = redis.call('HMGET', keys[1], 'state', 'at', 'first', 'final')
  for i = 1, 4 do fields[i] = fields[i] or '' end
  return fields
end
flags.ledger_peek = { 'no-writes' }

-- Gives back what a hold has whose lease is over. One that was committed is remembered: its first charge stands.
-- keys: acct, acctkey, hold, leases; args: member, whether it has an API key
function fn.ledger_lapse(keys, args)
  local ends = redis.call('ZSCORE', keys[4], args[1])
  if not ends or tonumber(ends) > now_ms() then return 0 end
  local both = { load(keys[1]), args[2] == '1' and load(keys[2]) or nil }
  local hold = load(keys[3])
  decided(both, hold)
  hold_instead(both, hold, {})
  each(both, save)
  redis.call('ZREM', keys[4], args[1])
  if hold.fields.state == 'committed' then
    save(hold)
    redis.call('PEXPIRE', keys[3], lapsed_ms)
  elseif hold.fields.state ~= 'done' then
    redis.call('DEL', keys[3])
  end
  return 1
end
flags.ledger_lapse = { 'allow-oom' }
