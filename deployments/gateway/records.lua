-- The lines of the spool, put together from JSON that is already there. docs/reference/audit-records.md names the fields.
local json = require("json")
local posix = require("posix")
local spool = require("spool")

local END = "}\n"
local concat, format = table.concat, string.format
local str, str_or_null = json.string, json.string_or_null

local records = {}

local function time(at) return format("%.6f", at) end

local function number_or_null(value, pattern) return value and format(pattern or "%.0f", value) or "null" end

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
    ',"subject":', str(asked.subject or exchange.identity.actor), ',"host":', str(exchange.host), ',"path":', str(exchange.path), ",",
    exchange.backend.json, ',"requested":', str(asked.model), ',"risk_class":', str(exchange.risk_class),
    ',"stream":', tostring(asked.stream), ',"sampling":', asked.sampling,
    ',"input_sha256":"', asked.sha256, '","input_bytes":', format("%.0f", #asked.body),
    high and ',"input":' or "", high and str(asked.body) or "", ',"remote":', str_or_null(exchange.remote), END,
  }))
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

-- The client went away before the answer had ended.
function records.aborted(exchange)
  spool.keep(concat({
    '{"e":"aborted","id":"', exchange.id, '","at":', time(posix.now()), ',"first_byte_ms":', milliseconds(exchange.first_byte_ms), END,
  }))
end

local REQUESTED_BYTES = 200 -- of a name that nobody knows, a record keeps no more

-- A refused request. `refused`: id, at, tenant, model (the tenant's own, not what was asked for), key, status, reason, path,
-- requested, remote; only what is known.
function records.denied(refused)
  return spool.write(concat({
    '{"e":"denied","id":"', refused.id, '","at":', time(refused.at), ',"tenant":', str_or_null(refused.tenant),
    ',"model":', str_or_null(refused.model), ',"key":', str_or_null(refused.key), ',"status":', refused.status, ',"reason":"', refused.reason, '","path":',
    str_or_null(refused.path), ',"requested":', str_or_null(refused.requested and refused.requested:sub(1, REQUESTED_BYTES)),
    ',"remote":', str_or_null(refused.remote), END,
  }))
end

return records
