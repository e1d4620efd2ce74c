-- How much a key and its tenant may ask. Exact, because one worker holds the counts: never more than N requests in any
-- 60 s, never more than N at once. Tokens settle when an answer ends; what was in flight then may overshoot.
-- Counts live in memory: a gateway that starts again starts from nothing.
local ffi = require("ffi")
local posix = require("posix")

local WINDOW_S = 60
local SLOTS = WINDOW_S + 1 -- whole seconds that any 60 s can touch
local FIRST_CAPACITY = 16
local COLLECT_EVERY_S = 0.05
local SWEEP_EVERY_S = 60

local limits = {}
local meters = {}
local collected_at, swept_at = 0, 0
local look_for_abandoned

-- Times of the requests in the last 60 s, oldest first, in a ring that grows as it is needed.
local function new_meter()
  return {
    times = ffi.new("double[?]", FIRST_CAPACITY), capacity = FIRST_CAPACITY, head = 0, count = 0,
    active = 0, tokens = nil, used_at = 0,
  }
end

local function meter_of(name)
  local meter = meters[name]
  if not meter then
    meter = new_meter()
    meters[name] = meter
  end
  return meter
end

local function forget_old(meter, now)
  while meter.count > 0 and meter.times[meter.head] <= now - WINDOW_S do
    meter.head = (meter.head + 1) % meter.capacity
    meter.count = meter.count - 1
  end
end

local function grow(meter)
  local times = ffi.new("double[?]", meter.capacity * 2)
  for at = 0, meter.count - 1 do times[at] = meter.times[(meter.head + at) % meter.capacity] end
  meter.times, meter.head, meter.capacity = times, 0, meter.capacity * 2
end

local function note_request(meter, now)
  if meter.count == meter.capacity then grow(meter) end
  meter.times[(meter.head + meter.count) % meter.capacity] = now
  meter.count = meter.count + 1
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

local function note_tokens(meter, now, count)
  if not meter.tokens then meter.tokens = { second = ffi.new("double[?]", SLOTS), count = ffi.new("double[?]", SLOTS) } end
  local second = math.floor(now)
  local slot = second % SLOTS
  if meter.tokens.second[slot] ~= second then meter.tokens.second[slot], meter.tokens.count[slot] = second, 0 end
  meter.tokens.count[slot] = meter.tokens.count[slot] + count
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

-- Meters of nobody who asked lately are let go.
local function sweep(now)
  if now - swept_at < SWEEP_EVERY_S then return end
  swept_at = now
  for name, meter in pairs(meters) do
    if meter.active == 0 and meter.used_at < now - 2 * WINDOW_S then meters[name] = nil end
  end
end

-- What `collect` ends with; see exchanges.lua.
function limits.after_collecting(look) look_for_abandoned = look end

-- Finds the exchanges whose client went away, which then give back their place.
function limits.collect()
  local now = posix.monotonic()
  if now - collected_at < COLLECT_EVERY_S then return false end
  collectgarbage("collect")
  look_for_abandoned()
  collected_at = posix.monotonic()
  return true
end

local function fits_at_once(meter, most)
  if meter.active < most then return true end
  return limits.collect() and meter.active < most
end

-- Which limit is in the way of one more request, and in how many seconds to try again; nil: none.
local function in_the_way(limit, meter, now)
  if limit.requests_per_minute then
    forget_old(meter, now)
    if meter.count >= limit.requests_per_minute then
      return "requests_per_minute", meter.times[meter.head] + WINDOW_S - now
    end
  end
  if limit.tokens_per_minute and tokens_used(meter, now) >= limit.tokens_per_minute then
    return "tokens_per_minute", tokens_free_in(meter, now)
  end
  if limit.concurrent_requests and not fits_at_once(meter, limit.concurrent_requests) then
    return "concurrent_requests", 1
  end
  return nil
end

-- Who counts for this identity: the key, where it has limits, and the tenant, where it has.
local function counted(identity, tenant)
  local list = {}
  if identity.limits then list[1] = { limit = identity.limits, meter = meter_of(identity.meter) } end
  if tenant.limits then list[#list + 1] = { limit = tenant.limits, meter = meter_of(tenant.meter) } end
  return list
end

-- Counts one more request for key and tenant, or for neither. A ticket to give back; or nil, the limit in the way, in how
-- many seconds to try again, and the ticket of what counted.
function limits.admit(identity, tenant)
  local now = posix.monotonic()
  sweep(now)
  local ticket = counted(identity, tenant)
  for _, each in ipairs(ticket) do
    local reason, retry_s = in_the_way(each.limit, each.meter, now)
    if reason then return nil, reason, retry_s, ticket end
  end
  for _, each in ipairs(ticket) do
    local meter = each.meter
    if each.limit.requests_per_minute then note_request(meter, now) end
    meter.active, meter.used_at = meter.active + 1, now
  end
  return ticket
end

-- Ends what `admit` began, with the tokens that it took.
function limits.settle(ticket, tokens)
  local now = posix.monotonic()
  for _, each in ipairs(ticket) do
    each.meter.active, each.meter.used_at = each.meter.active - 1, now
    if each.limit.tokens_per_minute and tokens > 0 then note_tokens(each.meter, now, tokens) end
  end
end

-- OpenAI's headers for the tightest limit of requests: the limit, what remains, seconds until one more is free.
function limits.remaining(ticket)
  local now, most, remaining, reset_s = posix.monotonic(), nil, math.huge, 0
  for _, each in ipairs(ticket) do
    local limit, meter = each.limit.requests_per_minute, each.meter
    if limit then
      forget_old(meter, now)
      local left = math.max(0, limit - meter.count)
      if left < remaining then
        most, remaining = limit, left
        reset_s = meter.count > 0 and meter.times[meter.head] + WINDOW_S - now or 0
      end
    end
  end
  return most, remaining, reset_s
end

return limits
