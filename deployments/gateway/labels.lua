-- What the metrics read: dynamic metadata of the namespace `llm`. Names come from the journals alone, never from a client,
-- so there are as many as there are tenants, models and versions.
local NAMESPACE, UNKNOWN = "llm", "-"

local labels = {}

-- Who asks what. nil is not known.
function labels.ask(handle, tenant, model, version, risk_class)
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "tenant", tenant or UNKNOWN)
  metadata:set(NAMESPACE, "model", model or UNKNOWN)
  metadata:set(NAMESPACE, "version", version or UNKNOWN)
  metadata:set(NAMESPACE, "risk_class", risk_class or UNKNOWN)
end

-- How it ended: ok, error or denied, and why where it was not ok.
function labels.outcome(handle, outcome, reason)
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "outcome", outcome)
  if reason then metadata:set(NAMESPACE, "reason", reason) end
end

-- What it took; nil is not known.
function labels.cost(handle, prompt_tokens, completion_tokens, first_byte_ms)
  local metadata = handle:streamInfo():dynamicMetadata()
  if prompt_tokens then metadata:set(NAMESPACE, "prompt_tokens", prompt_tokens) end
  if completion_tokens then metadata:set(NAMESPACE, "completion_tokens", completion_tokens) end
  if first_byte_ms then metadata:set(NAMESPACE, "first_byte_ms", first_byte_ms) end
end

return labels
