-- Answers that come as server-sent events: every event is read as it passes, wherever it was cut. The usage that the
-- gateway asked for is taken out again; the record is written before the last event leaves.
-- vLLM names its digest only in the last event: what a wrong deployment said before has gone out by then, and the stream
-- ends with an error instead of its end.
local alarms = require("alarms")
local answer_parts = require("answer_parts")
local answers = require("answers")
local endpoints = require("endpoints")
local errors = require("errors")
local exchanges = require("exchanges")
local posix = require("posix")
local receipts = require("receipts")
local records = require("records")
local refusals = require("refusals")
local response_parts = require("response_parts")
local sha256 = require("sha256")

local END = "[DONE]"
local CUT = {
  status = 502, reason = "stream_cut", code = "stream_cut",
  message = "The model's server stopped in the middle of its answer.",
}

local event_streams = {}

local function new_stream(exchange)
  return { exchange = exchange, outcome = answer_parts.outcome(exchange), hash = sha256.new(), rest = "", closed = false }
end

local function emit(stream, out, text)
  stream.hash:update(text)
  stream.outcome.bytes = stream.outcome.bytes + #text
  out[#out + 1] = text
end

-- As it came, with all that it says.
local function pass(stream, out, text)
  answer_parts.went(stream.outcome)
  emit(stream, out, text)
end

local function emit_error(stream, out, refusal) emit(stream, out, "data: " .. errors.body(refusal) .. "\n\n") end

-- Ends the stream with its record; `last` is what then goes out. What vLLM still sends is dropped.
local function close(handle, stream, out, last, refusal)
  local exchange, outcome = stream.exchange, stream.outcome
  stream.closed = true
  if refusal then outcome.reason = refusal.reason end
  local mark = #out
  if refusal then emit_error(stream, out, refusal) else pass(stream, out, last) end
  outcome.sha256, outcome.text = stream.hash:hex(), answer_parts.text(outcome)
  local recorded, why = records.response(exchange, outcome)
  if not recorded then
    alarms.raise(handle, "the end of a stream is not on the record and not given", why)
    outcome.reason = "audit_unavailable"
    out[mark + 1] = "data: " .. errors.body(refusals.AUDIT_UNAVAILABLE) .. "\n\n"
  end
  exchanges.finish(exchange, answer_parts.tokens(outcome))
end

-- The data of an event: what its `data:` lines say.
local function data_of(event)
  local data = event:match("^data: ?([^\r\n]*)$")
  if data then return data end
  local lines = {}
  for line in event:gmatch("[^\r\n]+") do lines[#lines + 1] = line:match("^data: ?(.*)$") end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

local function finish(handle, stream, out, event)
  local outcome = stream.outcome
  local refusal
  if outcome.reason ~= "engine_error" then refusal = answers.wrong_version(handle, stream.exchange, outcome) end
  close(handle, stream, out, event, refusal)
end

-- One whole event of the Responses API, which ends with an event of its own and names its version in the first.
local function take_response(handle, stream, out, data, text)
  local exchange, outcome = stream.exchange, stream.outcome
  local held = response_parts.read_event(data, outcome)
  if not held then return close(handle, stream, out, nil, answers.BROKEN) end
  local wrong = not held.error and answers.wrong_version(handle, exchange, outcome) or nil
  if wrong then return close(handle, stream, out, nil, wrong) end
  if held.error then outcome.reason = "engine_error" end
  exchange.events = (exchange.events or 0) + 1
  if held.ends then return close(handle, stream, out, text) end
  pass(stream, out, text)
end

-- One whole event, with the blank line that ends it.
local function take(handle, stream, out, event, text)
  local data = data_of(event)
  if not data then return emit(stream, out, text) end -- a comment, which keeps the connection alive
  if stream.exchange.endpoint == endpoints.RESPONSES then return take_response(handle, stream, out, data, text) end
  if data == END then return finish(handle, stream, out, text) end
  local exchange, outcome = stream.exchange, stream.outcome
  local held = answer_parts.read(data, outcome)
  if not held then return close(handle, stream, out, nil, answers.BROKEN) end
  if outcome.digest and outcome.digest ~= exchange.backend.digest then
    return close(handle, stream, out, nil, answers.wrong_version(handle, exchange, outcome))
  end
  local cut_short = answers.cut_short(outcome)
  if cut_short then return close(handle, stream, out, nil, cut_short) end
  if held.error then outcome.reason = "engine_error" end
  if exchange.adds_usage and held.usage and not held.choices then return end
  exchange.events = (exchange.events or 0) + 1
  pass(stream, out, text)
end

-- Where the first event of the text ends: its last byte and the last of the blank line after it.
local function end_of_event(text, from)
  local at = text:find("\n", from, true)
  while at do
    local after = text:byte(at + 1)
    if after == 10 then return at - 1, at + 1 end
    if after == 13 and text:byte(at + 2) == 10 then return at - 1, at + 2 end
    at = text:find("\n", at + 1, true)
  end
  return nil
end

-- Takes the next piece of the stream; what goes out for it.
local function feed(handle, stream, piece)
  local text, out, from = stream.rest .. piece, {}, 1
  while not stream.closed do
    local last, blank = end_of_event(text, from)
    if not last then break end
    take(handle, stream, out, text:sub(from, last), text:sub(from, blank))
    from = blank + 1
  end
  stream.rest = text:sub(from)
  return table.concat(out)
end

-- What goes out at the end of a stream that never said that it was one.
local function cut(handle, stream)
  local out = {}
  close(handle, stream, out, "", stream.outcome.reason ~= "engine_error" and CUT or nil) -- an engine's own error stands
  return table.concat(out)
end

local function note_first_byte(exchange)
  exchange.first_byte_ms = exchange.first_byte_ms or (posix.now() - exchange.at) * 1000
end

-- Passes the stream on. `held.chunks`: the handle's bodyChunks(); `held.chunk`: the last of them that came.
function event_streams.give(handle, exchange, held)
  local stream = new_stream(exchange)
  exchange.stream = stream
  receipts.put(handle:headers(), exchange, true)
  handle:headers():remove("content-length") -- what goes out may be longer or shorter than what comes
  for chunk in held.chunks do
    held.chunk = chunk
    local length = chunk:length()
    if length > 0 then
      note_first_byte(exchange)
      local came = chunk:getBytes(0, length)
      local given = stream.closed and "" or feed(handle, stream, came)
      if given ~= came then chunk:setBytes(given) end
    end
  end
  if not stream.closed then
    local given = cut(handle, stream)
    if held.chunk then held.chunk:setBytes(given) end
  end
end

return event_streams
