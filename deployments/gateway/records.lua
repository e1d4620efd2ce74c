-- The lines of the spool, put together from JSON that is already there. docs/reference/audit-records.md names the fields.
local answer_parts = require("answer_parts")
local json = require("json")
local posix = require("posix")
local spool = require("spool")

local END = "}\n"
local concat, format = table.concat, string.format
local str, str_or_null = json.string, json.string_or_null

local records = {}

local function time(at) return format("%.6f", at) end

local function number_or_null(value, pattern) return value and format(pattern or "%.0f", value) or "null" end

local NAME_BYTES = 200 -- of what a client may choose freely, a record keeps no more

-- The beginning of a text, cut between two characters; nil: there is no text.
local function short(text)
  if not text or #text <= NAME_BYTES then return text end
  local last = NAME_BYTES
  while last > 0 and text:byte(last + 1) >= 0x80 and text:byte(last + 1) < 0xc0 do last = last - 1 end
  return text:sub(1, last)
end

local function milliseconds(value) return number_or_null(value, "%.3f") end

-- Who asks, as every record of an identity says it; made once and kept with it.
local function identity_json(identity, tenant)
  if not identity.json then
    identity.json = concat({
      '"tenant":', str(tenant), ',"via":"', identity.via, '","key":', str_or_null(identity.id), ',"actor":', str(identity.actor),
    })
  end
  return identity.json
end

-- An exchange's request, before it goes on.
function records.request(exchange, asked)
  local high = exchange.keeps_text
  return spool.write(concat({
    '{"e":"request","id":"', exchange.id, '","at":', time(exchange.at), ",", identity_json(exchange.identity, exchange.tenant),
    ',"subject":', str(asked.subject or exchange.identity.actor), ',"host":', str(short(exchange.host)), ',"path":', str(exchange.path), ",",
    exchange.backend.json, ',"requested":', str(asked.model), ',"risk_class":', str(exchange.risk_class),
    ',"stream":', tostring(asked.stream), ',"sampling":', asked.sampling,
    ',"input_sha256":"', asked.sha256, '","input_bytes":', format("%.0f", #asked.body),
    high and ',"input":' or "", high and str(asked.body) or "", ',"remote":', str_or_null(exchange.remote), END,
  }))
end

-- A question that the gateway answers itself, with its answer: about no model, or about one that `known.requested` names.
function records.listed(known, identity, tenant, answer_sha256, bytes)
  local at = time(posix.now())
  return spool.write(concat({
    '{"e":"request","id":"', known.id, '","at":', time(known.at), ",", identity_json(identity, tenant),
    ',"subject":', str(identity.actor), ',"host":', str(short(known.host)), ',"path":', str(short(known.path)),
    ',"requested":', str_or_null(short(known.requested)), ',"stream":false,"input_bytes":0,"remote":', str_or_null(known.remote), END,
    '{"e":"response","id":"', known.id, '","at":', at, ',"status":200,"output_sha256":"', answer_sha256,
    '","output_bytes":', format("%.0f", bytes), ',"ms":', milliseconds((posix.now() - known.at) * 1000), END,
  }))
end

-- What goes out of a stream, and what it says, as far as it has gone out.
local function sent_json(exchange)
  local stream = exchange.stream
  if not stream then return "" end
  local outcome, text = stream.outcome, exchange.keeps_text and answer_parts.text(stream.outcome)
  return concat({
    ',"output_sha256":"', stream.hash:hex(), '","output_bytes":', format("%.0f", outcome.bytes),
    text and ',"output":' or "", text and str(text) or "",
    ',"prompt_tokens":', number_or_null(outcome.prompt_tokens), ',"completion_tokens":', number_or_null(outcome.completion_tokens),
    ',"served_digest":', str_or_null(outcome.digest),
  })
end

-- An exchange's answer, before its last bytes leave. `outcome`: status, usage, finish_reason, digest, sha256, bytes, text,
-- reason.
function records.response(exchange, outcome)
  local now, high = posix.now(), exchange.keeps_text and outcome.text
  return spool.write(concat({
    '{"e":"response","id":"', exchange.id, '","at":', time(now), ',"status":', outcome.status,
    ',"prompt_tokens":', number_or_null(outcome.prompt_tokens), ',"completion_tokens":', number_or_null(outcome.completion_tokens),
    ',"finish_reason":', str_or_null(outcome.finish_reason), ',"served_digest":', str_or_null(outcome.digest),
    ',"output_sha256":"', outcome.sha256, '","output_bytes":', format("%.0f", outcome.bytes),
    high and ',"output":' or "", high and str(high) or "",
    ',"first_byte_ms":', milliseconds(exchange.first_byte_ms), ',"ms":', milliseconds((now - exchange.at) * 1000),
    ',"reason":', str_or_null(outcome.reason), END,
  }))
end

-- The client went away before the answer had ended: what had been sent to it.
function records.aborted(exchange)
  spool.keep(concat({
    '{"e":"aborted","id":"', exchange.id, '","at":', time(posix.now()), ',"first_byte_ms":', milliseconds(exchange.first_byte_ms),
    sent_json(exchange), END,
  }))
end

-- The server broke off its answer and Envoy ended it.
function records.broken(exchange, status)
  local now = posix.now()
  spool.keep(concat({
    '{"e":"response","id":"', exchange.id, '","at":', time(now), ',"status":', status, sent_json(exchange),
    ',"first_byte_ms":', milliseconds(exchange.first_byte_ms), ',"ms":', milliseconds((now - exchange.at) * 1000),
    ',"reason":', str_or_null(exchange.known.reason), END,
  }))
end

local function denied(refused)
  return concat({
    '{"e":"denied","id":"', refused.id, '","at":', time(refused.at), ',"tenant":', str_or_null(refused.tenant),
    ',"model":', str_or_null(refused.model), ',"key":', str_or_null(refused.key), ',"status":', refused.status, ',"reason":"', refused.reason,
    '","path":',
    str_or_null(short(refused.path)), ',"requested":', str_or_null(short(refused.requested)),
    ',"remote":', str_or_null(refused.remote), refused.count and ',"count":' or "", refused.count or "", END,
  })
end

-- A refused request. `refused`: id, at, tenant, model (the tenant's own, not what was asked for), key, status, reason, path,
-- requested, remote, count (of how many this is the record); only what is known.
function records.denied(refused) return spool.write(denied(refused)) end

-- A client that went away before all of its request had come: nobody is left to be refused for a record.
function records.left(known) spool.keep(denied(known)) end

return records
