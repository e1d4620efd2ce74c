-- One request and its answer, from the moment that the client is known. Envoy runs a coroutine for each of the two and
-- tells neither when the client goes away; so an exchange hangs on the stream's handle, and a finalizer ends it when
-- Envoy has let go of the stream before the answer was over.
local limits = require("limits")
local records = require("records")

local METADATA = "llm.exchange"
local BYTES_OF_A_TOKEN = 4 -- a rough guess, for answers that were cut off before vLLM counted

local exchanges = {}

-- By number, while their streams live.
local open = setmetatable({}, { __mode = "v" })
local last_number = 0
local NO_EXCHANGE, ANSWERED = 0, { over = true } -- of what the filter itself answered

-- What an answer cost that never said so: an event of a stream carries a token at least.
local function tokens_of(exchange)
  return exchange.tokens or math.ceil(exchange.asked_bytes / BYTES_OF_A_TOKEN) + (exchange.events or 0)
end

-- Gives back the place that limits counted, once.
local function give_back(exchange)
  local ticket = exchange.ticket
  if not ticket then return end
  exchange.ticket = nil
  limits.settle(ticket, tokens_of(exchange))
end

local function end_abandoned(guard)
  local exchange = debug.getfenv(guard)
  if exchange.recorded and not exchange.over then
    exchange.over = true
    give_back(exchange)
    records.aborted(exchange)
  end
end

-- A finalizer has nobody to tell of an error; what fails here leaves a request without an end, which the collector sees.
local template = newproxy(true)
getmetatable(template).__gc = function(guard)
  if guard ~= template then pcall(end_abandoned, guard) end
end

-- Binds a new exchange to the stream of a handle.
function exchanges.start(handle, exchange)
  local guard = newproxy(template)
  debug.setfenv(guard, exchange)
  debug.setfenv(handle, { guard, exchange })
  last_number = last_number + 1
  open[last_number] = exchange
  handle:streamInfo():dynamicMetadata():set(METADATA, "number", last_number)
  return exchange
end

-- The filter answers this request itself.
function exchanges.answered(handle)
  local exchange = exchanges.of(handle)
  if exchange then exchange.over = true else handle:streamInfo():dynamicMetadata():set(METADATA, "number", NO_EXCHANGE) end
end

-- The exchange that a response belongs to; nil where the filter had not seen its request.
function exchanges.of(handle)
  local found = handle:streamInfo():dynamicMetadata():get(METADATA)
  if not found then return nil end
  if found.number == NO_EXCHANGE then return ANSWERED end
  return open[found.number] or error("the exchange of a living stream is gone")
end

-- The request is on the record from here on, and so will its end be.
function exchanges.recorded(exchange, ticket)
  exchange.recorded, exchange.ticket = true, ticket
end

-- The answer is over. `tokens`: as vLLM counted them, nil where it did not.
function exchanges.finish(exchange, tokens)
  exchange.over, exchange.tokens = true, tokens
  give_back(exchange)
end

return exchanges
