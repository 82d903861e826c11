-- The ledger's decisions: what an account has used, and what running requests hold of it.
--
-- An account (`acct`), and each API key of one (`acctkey`), is packed into one text: to read and write it whole is cheaper
-- than a dozen fields. It has
--   windows   PER -> { start, end, { METRIC[:CURRENCY] -> used }, before }: the window of each period in which something was
--             counted last, in ms; the end may be infinite. `before` is the one before it, in which requests that run may
--             still be charged; not known after a loss
--   reserved  METRIC[:CURRENCY] -> what running requests may still be charged, in whichever window that happens
--   latest    the time of the latest charge
--   unsure    how many reservations are `asked`
-- A reservation (`hold`) is packed as well, from reserve on until a while after settle:
--   state     `asked`: as `reserved`, but a group or user that was asked at the same time may yet refuse; `reserved`,
--             `committed` or `done`. A lapsed one is gone, or committed and holds nothing
--   held      METRIC[:CURRENCY] -> its part of what the account has reserved
--   at, seq   the time of the charge, and the number of its record
--   first, final   the first charge, the final one, as parts
-- `leases` is a sorted set: until when a hold is kept without a word from its node.
--
-- Amounts are safe integers, 0 to 2^53 - 1, and come as decimal text: `requests=1 cost:CNY=500`. In here they are doubles,
-- which is exact, and so are whole numbers in what is packed: the difference of two is exact, and a sum
-- is either below 2^53, or rounded to something that is not, and then cut to 2^53 - 1. For the same reason a comparison
-- with a limit is right: rounding never moves a sum across 2^53. This is the arithmetic of the ledger in memory to the
-- bit.
--
-- The functions that concern a request begin with the same arguments:
--   1 known    the number of the tag's newest record that the node has seen
--   2 begun    1 if the node knows that something was counted for the account
--   3 has_key  1 if there is an API key
--   4 windows  `PER start end` of each period, of the node's time; used where a window of the account is over
--   5 limits   `METRIC[:CURRENCY] PER max key` of each; key is 1 where it counts in the API key's account
-- and may answer { 'LOST' }: the tag, or the account, has lost what the node knows of; { 'STALE', time }: the windows are
-- not those of this time; or { 'DONE' }. `''` stands for an argument that is not there.

local most = 9007199254740991

-- How long a committed hold is remembered after it has lapsed: for a settlement that comes late, perhaps from the next
-- start of a process that was killed. In ms.
local lapsed_ms = 604800000

-- A whole number as text: a third of the cost of `int`, which also rounds.
local function text(n)
  return string.format('%d', n)
end

local function time_of(digits)
  return digits == 'inf' and math.huge or tonumber(digits)
end

-- What a text says, parsed once for all calls that follow: the same ones come again and again. Nothing may be changed in it.
local function remembered(parse)
  local known, size = {}, 0
  return function(given)
    local value = known[given]
    if value then return value end
    if size >= 200 then known, size = {}, 0 end
    value = parse(given)
    known[given], size = value, size + 1
    return value
  end
end

-- -> { { per, start, end } }
local windows_in = remembered(function(given)
  local windows = {}
  for per, from, to in string.gmatch(given, '(%S+) (%S+) (%S+)') do
    windows[#windows + 1] = { per, time_of(from), time_of(to) }
  end
  return windows
end)

local limits_in = remembered(function(given)
  local limits = {}
  for name, per, max, key in string.gmatch(given, '(%S+) (%S+) (%d+) (%d)') do
    limits[#limits + 1] = { name = name, per = per, max = tonumber(max), has_key = key == '1' }
  end
  return limits
end)

local function number(digits)
  if not string.find(digits, '^%d+$') or #digits > 16 then return nil end
  local value = tonumber(digits)
  return value <= most and value or nil
end

-- Amounts as parts { ['METRIC[:CURRENCY]'] = number }; nil where one is none.
local function parts_of(given)
  local parts = {}
  for name, digits in string.gmatch(given, '([^ =]+)=([^ ]*)') do
    local value = number(digits)
    if not value then return nil end
    parts[name] = value
  end
  return parts
end

local function parts_text(parts)
  local texts = {}
  for name, part in pairs(parts) do texts[#texts + 1] = name .. '=' .. text(part) end
  return table.concat(texts, ' ')
end

local function load(key)
  local packed = redis.call('GET', key)
  local account = packed and cmsgpack.unpack(packed) or { windows = {}, reserved = {} }
  return { key = key, account = account, windows = account.windows, reserved = account.reserved, over = {} }
end

local function save(counts)
  if counts.has_changed then redis.call('SET', counts.key, cmsgpack.pack(counts.account)) end
  counts.has_changed = false
end

local function load_hold(key)
  local packed = redis.call('GET', key)
  return packed and cmsgpack.unpack(packed) or { held = {} }
end

local function save_hold(key, hold, keep_ms)
  if keep_ms then redis.call('SET', key, cmsgpack.pack(hold), 'PX', keep_ms)
  else redis.call('SET', key, cmsgpack.pack(hold)) end
end

-- Adds parts to amounts. Stops at both ends, as memory's amounts do.
local function add(amounts, parts, sign)
  for name, part in pairs(parts) do
    if part ~= 0 then
      local sum = (amounts[name] or 0) + sign * part
      if sum > most then sum = most end
      amounts[name] = sum > 0 and sum or nil
    end
  end
end

local function reserve(counts, parts, sign)
  add(counts.reserved, parts, sign)
  counts.has_changed = true
end

-- What is to be added where one charge takes the place of another.
local function difference(final, first)
  local parts = {}
  for name, part in pairs(final) do parts[name] = part - (first[name] or 0) end
  for name, part in pairs(first) do if not final[name] then parts[name] = -part end end
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
  local now, own = at, counts.windows
  for i = 1, #windows do
    local window = own[windows[i][1]]
    if window and window[1] > now then now = window[1] end
  end
  counts.over = {}
  for i = 1, #windows do
    local bounds = windows[i]
    local window = own[bounds[1]]
    local fits = bounds[2] <= now and now < bounds[3]
    if not window or now >= window[2] then
      if not fits then return now, true end
      counts.over[bounds[1]] = bounds
    elseif fits and window[2] ~= bounds[3] then
      window[1], window[2] = bounds[2], bounds[3]
      counts.has_changed = true
    end
  end
  return now, false
end

-- Starts the windows of the time that look() was given: for what is counted next.
local function advance(counts)
  for per, bounds in pairs(counts.over) do
    local ended = counts.windows[per]
    counts.windows[per] = { bounds[2], bounds[3], {}, ended and { ended[1], ended[2], ended[3] } or nil }
    counts.has_changed = true
  end
  counts.over = {}
end

-- Adds parts in the windows that have begun, after advance().
local function count(counts, windows, parts, sign)
  for i = 1, #windows do add(counts.windows[windows[i][1]][3], parts, sign) end
  counts.has_changed = true
end

-- The same for a charge whose time is `at`, before the windows of now: it counts in those that contain it.
local function count_late(counts, windows, parts, at)
  for i = 1, #windows do
    local window = counts.windows[windows[i][1]]
    if at < window[1] then window = window[4] end
    if window and at >= window[1] and at < window[2] then add(window[3], parts, 1) end
  end
  counts.has_changed = true
end

local function contains(window, at)
  return window and at >= window[1] and at < window[2]
end

-- What was used in the running window and its end. With `at`, the time of a charge: if that was made in another window in
-- which more was used, what was used there, and the end of that.
local function used(counts, limit, at)
  local over, window = counts.over[limit.per], counts.windows[limit.per]
  local starts, ends, amount
  if over then starts, ends, amount = over[2], over[3], 0
  else starts, ends, amount = window[1], window[2], window[3][limit.name] or 0 end
  if at and at < starts then
    local ended = contains(window, at) and window or window and contains(window[4], at) and window[4]
    local before = ended and ended[3][limit.name] or 0
    if before > amount then return before, ended[2] end
  end
  return amount, ends
end

local function reserved(counts, limit)
  return counts.reserved[limit.name] or 0
end

-- The account, and the counts of the request's API key if it has one, as of this time. `ends`: the call ends what the
-- user's account has begun. A node may know of that, and so of the group's first charge, before this call makes it.
local function open(keys, args, at, ends)
  local windows = windows_in(args[4])
  local account = load(keys[1])
  local both = { account, windows = windows }
  local now, stale = look(account, at, windows)
  if args[3] == '1' then
    both[2] = load(keys[2])
    local _, key_stale = look(both[2], now, windows)
    stale = stale or key_stale
  end
  both.now = now
  if stale then return nil, { 'STALE', now } end
  if args[2] == '1' and not ends and not account.windows.total then return nil, { 'LOST' } end
  return both
end

local function counts_of(both, limit)
  return limit.has_key and both[2] or both[1]
end

local function each(both, work, ...)
  for i = 1, #both do work(both[i], ...) end
end

-- used, reserved and end of a limit, behind what `reply` already has. `at` as in used().
local function with_bucket(reply, both, limit, at)
  local counts, size = counts_of(both, limit), #reply
  local amount, ends = used(counts, limit, at)
  -- As text: clients round integers near 2^53.
  reply[size + 1], reply[size + 2] = text(amount), text(reserved(counts, limit))
  reply[size + 3] = ends == math.huge and 'inf' or ends
  return reply
end

local function with_buckets(reply, both, limits)
  for i = 1, #limits do with_bucket(reply, both, limits[i]) end
  return reply
end

-- { 'FULL', its place, whether that may be different soon, bucket } for the first limit without room; nil if all have
-- room. A limit in another currency always has. `at` is the time of the charge that this one is added to: its windows,
-- which may be over, must have room as well.
local function full(both, limits, charge, at)
  for i = 1, #limits do
    local limit = limits[i]
    local counts, part = counts_of(both, limit), charge[limit.name]
    if part and (used(counts, limit, at)) + reserved(counts, limit) + part > limit.max then
      local unsure = (both[1].account.unsure or 0) > 0 and '1' or '0'
      return with_bucket({ 'FULL', i - 1, unsure }, both, limit, at)
    end
  end
  return nil
end

local function extend(keys, now, lease, member)
  redis.call('ZADD', keys[4], text(now + tonumber(lease)), member)
end

-- The rest of what a hold has after `first` has been taken from it.
local function rest_of(held, first)
  local rest = {}
  for name, part in pairs(held) do
    if part > (first[name] or 0) then rest[name] = part - (first[name] or 0) end
  end
  return rest
end

-- Gives back what a hold has, and holds something else instead.
local function hold_instead(both, hold, parts)
  each(both, reserve, hold.held, -1)
  each(both, reserve, parts, 1)
  hold.held = parts
end

-- It is certain now what becomes of a hold.
local function decided(both, hold)
  if hold.state ~= 'asked' then return end
  local account = both[1].account
  account.unsure = math.max(0, (account.unsure or 0) - 1)
  both[1].has_changed = true
end

-- keys: acct, acctkey, hold, leases, log, logseq
-- args: ..., 6 bound, 7 lease in ms, 8 member, 9 pair: another account is asked at the same time, and either
--       ledger_confirm or ledger_settle follows
-- -> { 'OK', buckets } | { 'FULL', ... } | LOST | STALE | DONE
function fn.ledger_reserve(keys, args)
  if lib.log_lost(keys, args[1]) then return { 'LOST' } end
  local bound, limits = parts_of(args[6]), limits_in(args[5])
  if not bound then return refused() end
  local now = now_ms()
  local both, problem = open(keys, args, now)
  if not both then return problem end
  local hold = load_hold(keys[3])
  if hold.state == 'done' then return { 'DONE' } end
  if not hold.state then
    local blocking = full(both, limits, bound)
    if blocking then return blocking end
    hold.state = args[9] == '1' and 'asked' or 'reserved'
    if hold.state == 'asked' then both[1].account.unsure = (both[1].account.unsure or 0) + 1 end
    hold_instead(both, hold, bound)
    each(both, save)
    save_hold(keys[3], hold)
    extend(keys, now, args[7], args[8])
  end
  return with_buckets({ 'OK' }, both, limits)
end

-- All accounts that were asked have agreed.
-- keys: acct, acctkey, hold, leases
function fn.ledger_confirm(keys)
  local hold = load_hold(keys[3])
  if hold.state ~= 'asked' then return 0 end
  local account = load(keys[1])
  decided({ account }, hold)
  hold.state = 'reserved'
  save(account)
  save_hold(keys[3], hold)
  return 1
end
flags.ledger_confirm = { 'allow-oom' }

-- Makes the first charge: counts it, and takes it from what is held. `given` is the time that another account has decided,
-- or ''. Returns the effective time.
local function charge(both, hold, first, given, now)
  local account, at = both[1].account, both.now
  each(both, advance)
  -- Where the clock has stepped back, its time is not that of this account. Else the period has begun since: that of a reset
  -- begins 1 ms later than it was made, and what was charged in that ms is forgotten, as the copies do.
  if given ~= '' and tonumber(given) < at and at <= now + 1 then
    at = tonumber(given)
    each(both, count_late, both.windows, first, at)
  else
    each(both, count, both.windows, first, 1)
  end
  hold_instead(both, hold, rest_of(hold.held, first))
  decided(both, hold)
  hold.state, hold.at, hold.first = 'committed', at, first
  account.latest = math.max(at, account.latest or 0)
  return at
end

local function log_with_at(keys, kind, at, body)
  if body == '' then return lib.log_append(keys, 'mark', '{}') end
  return lib.log_append(keys, kind, '{"at":' .. text(at) .. ',' .. body)
end

-- The time of a charge: that of another account (`at`), or so long `ago`, in ms.
local function charged_at(at, ago, now)
  return at ~= '' and tonumber(at) or now - math.floor(tonumber(ago))
end

-- keys: as ledger_reserve
-- args: ..., 6 first, 7 at, 8 ago, 9 body
-- -> { 'OK', at, number of the record or '', time, buckets } | LOST | STALE | DONE
function fn.ledger_commit(keys, args)
  local ends = args[9] == ''
  if lib.log_lost(keys, args[1], ends) then return { 'LOST' } end
  local first = parts_of(args[6])
  if not first then return refused() end
  local now = now_ms()
  local both, problem = open(keys, args, charged_at(args[7], args[8], now), ends)
  if not both then return problem end
  local hold = load_hold(keys[3])
  local state = hold.state
  if state == 'done' then return { 'DONE' } end
  if state ~= 'committed' then
    local at = charge(both, hold, first, args[7], now)
    each(both, save)
    hold.seq = log_with_at(keys, 'charge', at, args[9])
    save_hold(keys[3], hold, not state and lapsed_ms or nil)
  end
  return with_buckets({ 'OK', hold.at, hold.seq or '', now }, both, limits_in(args[5]))
end
flags.ledger_commit = { 'allow-oom' }

-- Makes a hold have so much in all, if the limits have room for `extra`; without `extra` in any case.
-- keys: as ledger_reserve
-- args: ..., 6 held, 7 extra, 8 lease in ms, 9 member
-- -> { 'OK' } | { 'FULL', ... } | LOST | STALE | DONE
function fn.ledger_grow(keys, args)
  if lib.log_lost(keys, args[1]) then return { 'LOST' } end
  local target, extra = parts_of(args[6]), parts_of(args[7])
  if not target or not extra then return refused() end
  local now = now_ms()
  local both, problem = open(keys, args, now)
  if not both then return problem end
  local hold = load_hold(keys[3])
  if hold.state == 'done' then return { 'DONE' } end
  local same = true
  for name, part in pairs(target) do same = same and (hold.held[name] or 0) == part end
  if same then return { 'OK' } end
  local blocking = full(both, limits_in(args[5]), extra, hold.at)
  if blocking then return blocking end
  hold_instead(both, hold, target)
  hold.state = hold.state or 'reserved'
  each(both, save)
  save_hold(keys[3], hold)
  extend(keys, now, args[8], args[9])
  return { 'OK' }
end

-- Replaces a charge with another, in the windows that contain its time.
local function replace(counts, windows, at, first, final)
  local parts = difference(final, first)
  for i = 1, #windows do
    local window = counts.windows[windows[i][1]]
    if contains(window, at) then add(window[3], parts, 1) end
    if window and contains(window[4], at) then add(window[4][3], parts, 1) end
  end
  counts.has_changed = true
end

-- Releases a hold and, with `final`, replaces the first charge with the final one. The first charge is that of the hold;
-- else, with `charged_at`, `first` was made then, as an earlier answer has told the node; else `first` is made now.
-- keys: as ledger_reserve
-- args: ..., 6 member, 7 keep in ms, 8 final, 9 body, 10 shared: a group's part may ask what became of it, 11 fresh: it is
--       certain that the mark of an earlier call would still be here, 12 first, 13 charged_at, 14 at, 15 ago, 16 charge's body
-- -> { 'OK', time, at or '', number of the charge's record or '', number of the settlement's or '', buckets }
--    | LOST | STALE | DONE: it was settled before | GONE: that, or what it is about was lost
function fn.ledger_settle(keys, args)
  local ends = args[8] ~= '' and args[9] == ''
  if lib.log_lost(keys, args[1], ends) then return { 'LOST' } end
  local hold = load_hold(keys[3])
  local is_final, limits = args[8] ~= '', limits_in(args[5])
  if hold.state == 'done' then return { 'DONE' } end
  if is_final and not hold.state and args[11] ~= '1' then return { 'GONE' } end
  local now = now_ms()
  local final = is_final and parts_of(args[8])
  local is_committed, first = hold.state == 'committed', hold.first
  if not is_committed then first = args[12] ~= '' and parts_of(args[12]) end
  if (is_final and not final) or first == nil then return refused() end
  local both, problem = open(keys, args, now, ends)
  if not both then return problem end
  -- It was held again after a loss, or after its mark was gone: that says nothing of an earlier call.
  if is_final and args[11] ~= '1' and hold.again and not is_committed then
    hold_instead(both, hold, {})
    save_hold(keys[3], { state = 'done', held = {} }, args[7])
    each(both, save)
    redis.call('ZREM', keys[4], args[6])
    return { 'GONE' }
  end

  local reply = { 'OK', now, '', '', '' }
  local at = is_committed and hold.at or args[13] ~= '' and tonumber(args[13])
  if final and first and not at then
    -- Where it was made in windows that are not those of now, it counts in those of now.
    both = open(keys, args, charged_at(args[14], args[15], now), ends) or both
    at = charge(both, hold, first, args[14], now)
    reply[4] = log_with_at(keys, 'charge', at, args[16])
  end
  decided(both, hold)
  hold_instead(both, hold, {})
  local done = { state = 'done', held = {} }
  if final and at then
    each(both, replace, both.windows, at, first, final)
    reply[3] = at
    reply[5] = log_with_at(keys, 'settle', at, args[9])
    if args[10] == '1' then done.at, done.first, done.final = at, first, final end
  end
  save_hold(keys[3], done, args[7])
  each(both, save)
  redis.call('ZREM', keys[4], args[6])
  each(both, look, now, both.windows)
  return with_buckets(reply, both, limits)
end
flags.ledger_settle = { 'allow-oom' }

-- The buckets of limits of one account, and of one of its API keys.
-- keys: acct, acctkey, log, logseq
-- -> { 'OK', buckets } | LOST | STALE
function fn.ledger_buckets(keys, args)
  if lib.log_lost(keys, args[1]) then return { 'LOST' } end
  local both, problem = open(keys, args, now_ms())
  if not both then return problem end
  return with_buckets({ 'OK' }, both, limits_in(args[5]))
end
flags.ledger_buckets = { 'no-writes' }

-- A change by hand: `added` and `taken` in all running windows, or the restart of the window `per`, one ms later than
-- all charges made so far.
-- keys: acct, acct, mark, log, logseq
-- args: ..., 6 per, 7 added, 8 taken, 9 body, 10 keep in ms
-- -> { 'OK', number of the record, time, at } | LOST | STALE
function fn.ledger_change(keys, args)
  if lib.log_lost(keys, args[1]) then return { 'LOST' } end
  local done = redis.call('HMGET', keys[3], 'seq', 'time', 'at')
  if done[1] then return { 'OK', done[1], done[2], done[3] } end
  local per, added, taken = args[6], parts_of(args[7]), parts_of(args[8])
  if not added or not taken then return refused() end
  local now = now_ms()
  local at = now
  if per ~= '' then at = math.max(at, load(keys[1]).account.latest or 0) end
  local both, problem = open(keys, args, at)
  if not both then return problem end
  local account = both[1]
  at = both.now
  advance(account)
  if per ~= '' then
    local window = account.windows[per]
    account.windows[per] = { math.min(at + 1, window[2] - 1), window[2], {}, window[4] }
    account.has_changed = true
  else
    count(account, both.windows, added, 1)
    count(account, both.windows, taken, -1)
  end
  save(account)
  local seq = log_with_at(keys, per ~= '' and 'reset' or 'adjust', at, args[9])
  redis.call('HSET', keys[3], 'seq', text(seq), 'time', text(now), 'at', text(at))
  redis.call('PEXPIRE', keys[3], args[10])
  return { 'OK', seq, now, at }
end
flags.ledger_change = { 'allow-oom' }

-- Extends the leases of holds that are still held, and says which are. keys: leases; args: lease, members -> 1 or 0 for each
function fn.ledger_extend(keys, args)
  local ends, reply = text(now_ms() + tonumber(args[1])), {}
  for i = 2, #args do
    local is_held = redis.call('ZSCORE', keys[1], args[i]) ~= false
    if is_held then redis.call('ZADD', keys[1], ends, args[i]) end
    reply[i - 1] = is_held and 1 or 0
  end
  return reply
end
flags.ledger_extend = { 'allow-oom' }

-- Holds again what a running request holds, where that was lost or has lapsed: it may be charged so much in any case, so
-- there need be no room. While a loss is mended, and then before anything is sold; else only where nothing is lost.
-- keys: as ledger_reserve; args: 1 known, 2 begun, 3 has_key, 4 held, 5 lease in ms, 6 member -> 1, or 0 where it holds nothing
function fn.ledger_hold_again(keys, args)
  local target, hold = parts_of(args[4]), load_hold(keys[3])
  if not target then return refused() end
  if hold.state == 'done' then return 0 end
  local both = { load(keys[1]), args[3] == '1' and load(keys[2]) or nil }
  if redis.call('HGET', keys[#keys], 'fenced') ~= 'mend' then
    local is_missing = args[2] == '1' and not both[1].windows.total
    if is_missing or lib.log_lost(keys, args[1]) then return 0 end
  end
  -- A call that makes it grow may have come before.
  for name, part in pairs(hold.held) do target[name] = math.max(part, target[name] or 0) end
  hold_instead(both, hold, target)
  -- An earlier call may have settled it, and be forgotten: see ledger_settle.
  if not hold.state then hold.state, hold.again = 'reserved', true end
  each(both, save)
  save_hold(keys[3], hold)
  extend(keys, now_ms(), args[5], args[6])
  return 1
end
flags.ledger_hold_again = { 'allow-oom' }

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
  local hold = load_hold(keys[1])
  local first, final = hold.first and parts_text(hold.first) or '', hold.final and parts_text(hold.final) or ''
  return { hold.state or '', hold.at or '', first, final }
end
flags.ledger_peek = { 'no-writes' }

-- Gives back what a hold has whose lease is over. One that was committed is remembered: its first charge stands.
-- keys: acct, acctkey, hold, leases; args: member, whether it has an API key
function fn.ledger_lapse(keys, args)
  local ends = redis.call('ZSCORE', keys[4], args[1])
  if not ends or tonumber(ends) > now_ms() then return 0 end
  local both = { load(keys[1]), args[2] == '1' and load(keys[2]) or nil }
  local hold = load_hold(keys[3])
  decided(both, hold)
  hold_instead(both, hold, {})
  each(both, save)
  redis.call('ZREM', keys[4], args[1])
  if hold.state == 'committed' then save_hold(keys[3], hold, lapsed_ms)
  elseif hold.state ~= 'done' then redis.call('DEL', keys[3]) end
  return 1
end
flags.ledger_lapse = { 'allow-oom' }

-- A copy of accounts at one moment. keys: log, logseq, acct or acctkey ...
-- -> seq, then for each a flat list of names and values: PER:start, PER:end, PER:METRIC[:CURRENCY]
function fn.ledger_accounts(keys)
  local reply = { redis.call('HGET', keys[2], 'seq') or '0' }
  for i = 3, #keys do
    local flat = {}
    local function push(name, value)
      flat[#flat + 1] = name
      flat[#flat + 1] = value == math.huge and 'inf' or text(value)
    end
    for per, window in pairs(load(keys[i]).windows) do
      push(per .. ':start', window[1])
      push(per .. ':end', window[2])
      for name, part in pairs(window[3]) do push(per .. ':' .. name, part) end
    end
    reply[i - 1] = flat
  end
  return reply
end
flags.ledger_accounts = { 'no-writes' }

-- Writes what an account has used; what is held of it stays. keys: acct or acctkey, mend
-- args: node, then names and values as ledger_accounts has them
function fn.ledger_restore_account(keys, args)
  if not lib.log_leads(keys[2], args[1]) then return 0 end
  local counts = load(keys[1])
  local windows = {}
  for i = 2, #args, 2 do
    local per, name = string.match(args[i], '^(%a+):(.+)$')
    windows[per] = windows[per] or { 0, math.huge, {} }
    if name == 'start' then windows[per][1] = time_of(args[i + 1])
    elseif name == 'end' then windows[per][2] = time_of(args[i + 1])
    else windows[per][3][name] = tonumber(args[i + 1]) end
  end
  counts.account.windows, counts.account.latest, counts.has_changed = windows, nil, true
  save(counts)
  return 1
end
flags.ledger_restore_account = { 'allow-oom' }

-- Remembers what became of a reservation, unless more is known of it: for calls that are repeated after the loss.
-- keys: hold, mend; args: node, for how long in ms, state, at, first, final
function fn.ledger_restore_hold(keys, args)
  if not lib.log_leads(keys[2], args[1]) then return 0 end
  local hold = load_hold(keys[1])
  if hold.state == args[3] or hold.state == 'done' then return 1 end
  local ttl = hold.state and redis.call('PTTL', keys[1]) or tonumber(args[2])
  hold.state, hold.at, hold.first = args[3], tonumber(args[4]), parts_of(args[5])
  if args[6] ~= '' then hold.final = parts_of(args[6]) end
  save_hold(keys[1], hold, ttl > 0 and text(ttl) or nil)
  return 1
end
flags.ledger_restore_hold = { 'allow-oom' }

-- Remembers that a change by hand was made. keys: mark, mend; args: node, for how long in ms, seq, time, at
function fn.ledger_restore_mark(keys, args)
  if not lib.log_leads(keys[2], args[1]) then return 0 end
  redis.call('HSET', keys[1], 'seq', args[3], 'time', args[4], 'at', args[5])
  redis.call('PEXPIRE', keys[1], args[2])
  return 1
end
flags.ledger_restore_mark = { 'allow-oom' }
