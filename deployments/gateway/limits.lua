-- How much a key and its tenant may ask. Exact, because one worker holds the counts: never more than N requests in any
-- 60 s, never more than N at once. A place among those at once, and room for the body, are taken before the body is.
-- Tokens settle when an answer ends: what a request says that it may cost is kept free for it until then, and what was spent
-- beyond the budget is paid off by the minutes that follow.
-- Counts live in memory: a gateway that starts again starts from nothing.
local ffi = require("ffi")
local posix = require("posix")

local WINDOW_S = 60
local SLOTS = WINDOW_S + 1 -- whole seconds that any 60 s can touch
local FIRST_CAPACITY = 16
local SWEEP_EVERY_S = 60
local SMALL_BYTES = 64 * 1024 -- the number of connections bounds these; other tenants' large ones never crowd them out
local TENANT_SHARE, KEY_SHARE = 4, 8 -- of the room for bodies: a tenant has a fourth, a key an eighth
local SHORT_S = 1
local LEAST_BESIDE = 60 -- of lists and refused bodies in a minute, however low the limit of requests is

local limits = { OVERLOADED = "overloaded" }
local meters = {}
local swept_at = 0
local room = math.huge
local find_abandoned

-- `bytes`: how much of all bodies may be held at once.
function limits.configure(bytes) room = bytes end

-- What ends the requests whose clients went away, so that they give their places back; see exchanges.lua.
function limits.before_refusing(look) find_abandoned = look end

local function new_meter() return { active = 0, bytes = 0, promised = 0, used_at = 0 } end

local everything = new_meter() -- that all requests together are counted by

local function meter_of(name)
  local meter = meters[name]
  if not meter then
    meter = new_meter()
    meters[name] = meter
  end
  return meter
end

-- Times of the requests in the last 60 s, oldest first, in a ring that grows as it is needed.
local function ring_of(meter, name)
  if not meter[name] then
    meter[name] = { times = ffi.new("double[?]", FIRST_CAPACITY), capacity = FIRST_CAPACITY, head = 0, count = 0 }
  end
  return meter[name]
end

-- The requests that a model was asked; and what the gateway answered itself, lists and refusals of a body that it had taken.
local ASKED, BESIDE = "asked", "beside"

local function forget_old(ring, now)
  while ring.count > 0 and ring.times[ring.head] <= now - WINDOW_S do
    ring.head = (ring.head + 1) % ring.capacity
    ring.count = ring.count - 1
  end
end

local function grow(ring)
  local times = ffi.new("double[?]", ring.capacity * 2)
  for at = 0, ring.count - 1 do times[at] = ring.times[(ring.head + at) % ring.capacity] end
  ring.times, ring.head, ring.capacity = times, 0, ring.capacity * 2
end

local function note_request(ring, now)
  if ring.count == ring.capacity then grow(ring) end
  ring.times[(ring.head + ring.count) % ring.capacity] = now
  ring.count = ring.count + 1
end

-- Tokens by whole second, in as many slots as 60 s can touch.
local function tokens_used(meter, now)
  local tokens = meter.tokens
  if not tokens then return 0 end
  local oldest, sum = math.floor(now) - WINDOW_S, 0
  for slot = 0, SLOTS - 1 do
    if tokens.second[slot] >= oldest then sum = sum + tokens.count[slot] end
  end
  return sum
end

-- What is left of a budget that grows by the second up to a minute's worth; below zero where more was spent than that.
local function balance_of(meter, most, now)
  local tokens = meter.tokens
  return tokens and math.min(most, tokens.balance + (now - tokens.balance_at) * most / WINDOW_S) or most
end

local function note_tokens(meter, most, now, count)
  if not meter.tokens then
    meter.tokens = { second = ffi.new("double[?]", SLOTS), count = ffi.new("double[?]", SLOTS), balance = most, balance_at = now }
  end
  local tokens, second = meter.tokens, math.floor(now)
  tokens.balance, tokens.balance_at, tokens.most = balance_of(meter, most, now) - count, now, most
  local slot = second % SLOTS
  if tokens.second[slot] ~= second then tokens.second[slot], tokens.count[slot] = second, 0 end
  tokens.count[slot] = tokens.count[slot] + count
end

-- Seconds until the oldest tokens that count no longer do.
local function tokens_free_in(meter, now)
  local oldest, first = math.floor(now) - WINDOW_S, math.huge
  for slot = 0, SLOTS - 1 do
    local second = meter.tokens.second[slot]
    if second >= oldest and second < first and meter.tokens.count[slot] > 0 then first = second end
  end
  return first + WINDOW_S + 1 - now
end

-- Meters of nobody who asked lately are let go; one that has spent too much is kept until that is paid off.
local function sweep(now)
  if now - swept_at < SWEEP_EVERY_S then return end
  swept_at = now
  for name, meter in pairs(meters) do
    local owes = meter.tokens and balance_of(meter, meter.tokens.most, now) < meter.tokens.most
    if meter.active == 0 and meter.used_at < now - 2 * WINDOW_S and not owes then meters[name] = nil end
  end
end

local function fits_at_once(meter, most)
  if meter.active < most then return true end
  find_abandoned()
  return meter.active < most
end

local function has_room(meter, bytes, share)
  if meter.bytes == 0 or meter.bytes + bytes <= room / share then return true end
  find_abandoned()
  return meter.bytes == 0 or meter.bytes + bytes <= room / share
end

-- Whether as many of a kind have been in the last minute as may be, and in how many seconds to try again.
local function is_full(meter, name, most, now)
  local ring = ring_of(meter, name)
  forget_old(ring, now)
  if ring.count < most then return false end
  return true, ring.times[ring.head] + WINDOW_S - now
end

local function full_beside(limit, meter, now)
  if not limit.requests_per_minute then return false end
  return is_full(meter, BESIDE, math.max(limit.requests_per_minute, LEAST_BESIDE), now)
end

-- Which limit that is full already is in the way of one more request, and in how many seconds to try again; nil: none.
-- `tokens`: the least that it will cost, for all that is known.
local function in_the_way(limit, meter, now, tokens)
  if limit.requests_per_minute then
    local full, retry_s = is_full(meter, ASKED, limit.requests_per_minute, now)
    if full then return "requests_per_minute", retry_s end
  end
  local most = limit.tokens_per_minute
  if not most then return nil end
  local balance, used = balance_of(meter, most, now), tokens_used(meter, now)
  if balance < 0 then return "tokens_per_minute", -balance * WINDOW_S / most end
  if tokens > most then return "tokens_of_a_request", WINDOW_S end
  if used + meter.promised + tokens <= most then return nil end
  return "tokens_per_minute", used > 0 and tokens_free_in(meter, now) or SHORT_S
end

-- Who counts for this identity: its key or token, the tenant, and all of them. `limit` is empty where there is none.
local NO_LIMIT = {}
local function counted(identity, tenant)
  return {
    { limit = identity.limits or NO_LIMIT, meter = meter_of(identity.meter), share = KEY_SHARE },
    { limit = tenant.limits or NO_LIMIT, meter = meter_of(tenant.meter), share = TENANT_SHARE },
    { limit = NO_LIMIT, meter = everything, share = 1 },
    bytes = 0, tokens = 0,
  }
end

local function hold(ticket, bytes)
  local more = bytes - ticket.bytes
  ticket.bytes = bytes
  for at = 1, #ticket do ticket[at].meter.bytes = ticket[at].meter.bytes + more end
end

-- Takes a place among those at once, and room for a body of so many bytes, for key and tenant, or neither. A ticket to give
-- back; or nil, the limit in the way, in how many seconds to try again, and the ticket of what counted.
function limits.enter(identity, tenant, bytes)
  local now = posix.monotonic()
  sweep(now)
  local ticket = counted(identity, tenant)
  for at = 1, #ticket do
    local limit, meter = ticket[at].limit, ticket[at].meter
    local reason, retry_s = in_the_way(limit, meter, now, 1)
    if reason then return nil, reason, retry_s, ticket end
    local full, full_s = full_beside(limit, meter, now)
    if full then return nil, "requests_per_minute", full_s, ticket end
    if limit.concurrent_requests and not fits_at_once(meter, limit.concurrent_requests) then
      return nil, "concurrent_requests", SHORT_S, ticket
    end
    if meter ~= everything and not has_room(meter, bytes, ticket[at].share) then
      return nil, "bytes_at_once", SHORT_S, ticket
    end
  end
  if bytes > SMALL_BYTES and not has_room(everything, bytes, 1) then return nil, limits.OVERLOADED, SHORT_S, ticket end
  for at = 1, #ticket do
    local meter = ticket[at].meter
    meter.active, meter.used_at = meter.active + 1, now
  end
  hold(ticket, bytes)
  return ticket
end

local function note_beside(ticket, now)
  for at = 1, #ticket do
    if ticket[at].limit.requests_per_minute then note_request(ring_of(ticket[at].meter, BESIDE), now) end
  end
end

-- Counts a question that the gateway answers itself. true; or nil, the limit in the way and in how many seconds to try again.
function limits.ask_beside(identity, tenant)
  local now, ticket = posix.monotonic(), counted(identity, tenant)
  for at = 1, #ticket do
    local meter = ticket[at].meter
    local full, retry_s = full_beside(ticket[at].limit, meter, now)
    if full then return nil, "requests_per_minute", retry_s end
    meter.used_at = now
  end
  note_beside(ticket, now)
  return true
end

-- The body is there, and is that long; or nothing of it is kept any more.
function limits.holds(ticket, bytes)
  if bytes < ticket.bytes then hold(ticket, bytes) end
end

-- Whether the request that entered fits into the limits of key and tenant; nil, the limit in the way and in how many seconds to
-- try again. `tokens`: the most that it says it may cost, at least one for each answer.
function limits.fits(ticket, tokens)
  local now = posix.monotonic()
  for at = 1, #ticket do
    local reason, retry_s = in_the_way(ticket[at].limit, ticket[at].meter, now, tokens)
    if reason then return nil, reason, retry_s end
  end
  return true
end

-- Counts a request that fits.
function limits.count(ticket, tokens)
  local now = posix.monotonic()
  for at = 1, #ticket do
    local limit, meter = ticket[at].limit, ticket[at].meter
    if limit.requests_per_minute then note_request(ring_of(meter, ASKED), now) end
    meter.promised = meter.promised + tokens
  end
  ticket.tokens = tokens
end

-- Ends what `enter` began, with the tokens that it took.
function limits.settle(ticket, tokens)
  local now = posix.monotonic()
  if ticket.tokens == 0 then note_beside(ticket, now) end -- it was not let in
  hold(ticket, 0)
  for at = 1, #ticket do
    local meter, most = ticket[at].meter, ticket[at].limit.tokens_per_minute
    meter.active, meter.used_at = meter.active - 1, now
    meter.promised = meter.promised - ticket.tokens
    if most and tokens > 0 then note_tokens(meter, most, now, tokens) end
  end
end

-- OpenAI's headers for the tightest limit of requests: the limit, what remains, seconds until one more is free; nil: none.
function limits.remaining(ticket)
  local now, most, remaining, reset_s = posix.monotonic(), nil, math.huge, 0
  for at = 1, #ticket do
    local limit = ticket[at].limit.requests_per_minute
    if limit then
      local ring = ring_of(ticket[at].meter, ASKED)
      forget_old(ring, now)
      local left = math.max(0, limit - ring.count)
      if left < remaining then
        most, remaining = limit, left
        reset_s = ring.count > 0 and ring.times[ring.head] + WINDOW_S - now or 0
      end
    end
  end
  return most, remaining, reset_s
end

return limits
