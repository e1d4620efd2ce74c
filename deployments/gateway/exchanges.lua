-- One request and its answer, from the moment that the client is known. Envoy runs a coroutine for each of the two and
-- tells neither how it ended where it ended at once; its access log does (ends.lua). That is read where places are short and
-- with every health check, which also ends what is in no log: Envoy lets go of the request's handle, and it is collected.
local ends = require("ends")
local limits = require("limits")
local new_table = require("table.new")
local records = require("records")
local tallies = require("tallies")

local METADATA = "llm.exchange"
local BYTES_OF_A_TOKEN = 4 -- a rough guess, for answers that were cut off before vLLM counted
local FIELDS = 32 -- room for all that an exchange learns, so that its table does not grow three times over

local exchanges = {}

-- By number: exchanges that are not over, and the handles of their requests. By id: the same exchanges.
local open, handles, by_id = {}, setmetatable({}, { __mode = "v" }), {}
local last_number = 0
local NO_EXCHANGE, ANSWERED = 0, { over = true } -- of what the filter itself answered

-- What an answer cost that never said so: an event of a stream carries a token at least.
local function tokens_of(exchange)
  return exchange.tokens or math.ceil(exchange.asked_bytes / BYTES_OF_A_TOKEN) + (exchange.events or 0)
end

-- Nothing more comes of it: its place is given back. What was never let in took no tokens.
local function close(exchange)
  if exchange.over then return end
  exchange.over = true
  open[exchange.number], handles[exchange.number], by_id[exchange.id] = nil, nil, nil
  local ticket = exchange.ticket
  if ticket then limits.settle(ticket, exchange.recorded and tokens_of(exchange) or 0) end
end

local LEFT = { status = 0, reason = "client_left" } -- before all of its body had come

-- The client went away, and was sent no end.
local function end_abandoned(exchange)
  close(exchange)
  if exchange.recorded then return records.aborted(exchange) end
  local known = exchange.known
  known.status, known.reason = LEFT.status, LEFT.reason
  if tallies.note(known) then return records.left(known) end
  tallies.count(known)
end

-- The server broke off, or said nothing more, and Envoy ended the answer.
local function end_broken(exchange, status)
  exchange.known.reason = exchange.stream and "stream_cut" or "bad_gateway"
  close(exchange)
  records.broken(exchange, exchange.stream and 200 or status)
end

-- What fails for one exchange leaves its request without an end on the record, which the collector sees.
ends.follow(function(ended)
  local exchange = by_id[ended.id]
  if not exchange then return end
  if ended.left or not exchange.recorded then return pcall(end_abandoned, exchange) end
  pcall(end_broken, exchange, ended.status)
end)

limits.before_refusing(ends.catch_up)

-- Ends all exchanges that have ended without the filter.
function exchanges.find_abandoned()
  ends.catch_up()
  for number, exchange in pairs(open) do
    if not handles[number] then pcall(end_abandoned, exchange) end
  end
end

-- A new exchange, bound to the stream of a handle. `known`: what is known of its request.
function exchanges.start(handle, known)
  last_number = last_number + 1
  local exchange = new_table(0, FIELDS)
  exchange.number, exchange.id, exchange.known = last_number, known.id, known
  open[last_number], handles[last_number], by_id[known.id] = exchange, handle, exchange
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

-- Its place among those at once, and its room.
function exchanges.entered(exchange, ticket)
  exchange.ticket, ticket.exchange = ticket, exchange
end

-- The request is on the record from here on, and so will its end be.
function exchanges.recorded(exchange) exchange.recorded = true end

-- The first of the answer is there: Envoy keeps nothing of the request any more.
function exchanges.answering(exchange) limits.holds(exchange.ticket, 0) end

-- Nothing more comes of it.
function exchanges.over(exchange) close(exchange) end

-- The answer is over. `tokens`: as vLLM counted them, nil where it did not.
function exchanges.finish(exchange, tokens)
  exchange.tokens = tokens
  close(exchange)
end

return exchanges
