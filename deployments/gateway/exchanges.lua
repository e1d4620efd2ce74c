-- One request and its answer, from the moment that the client is known. Envoy runs a coroutine for each of the two and
-- tells neither when the client goes away; it only lets go of the request's handle. So an exchange whose handle was
-- collected before its answer was over was abandoned. `limits.collect` looks for those.
local limits = require("limits")
local new_table = require("table.new")
local records = require("records")

local METADATA = "llm.exchange"
local BYTES_OF_A_TOKEN = 4 -- a rough guess, for answers that were cut off before vLLM counted
local FIELDS = 32 -- room for all that an exchange learns, so that its table does not grow three times over

local exchanges = {}

-- By number: exchanges that are not over, and the handles of their requests.
local open, handles = {}, setmetatable({}, { __mode = "v" })
local last_number = 0
local NO_EXCHANGE, ANSWERED = 0, { over = true } -- of what the filter itself answered

-- What an answer cost that never said so: an event of a stream carries a token at least.
local function tokens_of(exchange)
  return exchange.tokens or math.ceil(exchange.asked_bytes / BYTES_OF_A_TOKEN) + (exchange.events or 0)
end

local function forget(exchange)
  exchange.over = true
  open[exchange.number], handles[exchange.number] = nil, nil
end

-- Gives back the place that limits counted, once.
local function give_back(exchange)
  local ticket = exchange.ticket
  if not ticket then return end
  exchange.ticket = nil
  limits.settle(ticket, tokens_of(exchange))
end

-- What fails for one exchange leaves its request without an end on the record, which the collector sees.
local function end_abandoned(exchange)
  forget(exchange)
  if not exchange.recorded then return end
  give_back(exchange)
  records.aborted(exchange)
end

limits.after_collecting(function()
  for number, exchange in pairs(open) do
    if not handles[number] then pcall(end_abandoned, exchange) end
  end
end)

-- A new exchange, bound to the stream of a handle.
function exchanges.start(handle)
  last_number = last_number + 1
  local exchange = new_table(0, FIELDS)
  exchange.number = last_number
  open[last_number], handles[last_number] = exchange, handle
  handle:streamInfo():dynamicMetadata():set(METADATA, "number", last_number)
  return exchange
end

-- The filter answers this request itself.
function exchanges.answered(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local found = metadata:get(METADATA)
  local exchange = found and open[found.number]
  if exchange then exchanges.over(exchange) end
  metadata:set(METADATA, "number", NO_EXCHANGE)
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

-- Nothing more comes of it.
function exchanges.over(exchange)
  if not exchange.over then forget(exchange) end
end

-- The answer is over. `tokens`: as vLLM counted them, nil where it did not.
function exchanges.finish(exchange, tokens)
  exchanges.over(exchange)
  exchange.tokens = tokens
  give_back(exchange)
end

return exchanges
