-- What an identity may ask at a tenant's door: models and risk classes, of the tenant and of the key or token.
local access = {}

local function holds(set, name) return set == nil or set[name] == true or set["*"] == true end

-- The risk class of a model that may be asked; nil, status and reason where it may not.
function access.check(identity, tenant, model)
  local known = tenant.models[model]
  if not known then return nil, 404, "model" end
  local risk_class = known.risk_class
  if not holds(identity.models, model) then return nil, 403, "model" end
  if tenant.risk_classes[risk_class] ~= true or not holds(identity.risk_classes, risk_class) then
    return nil, 403, "risk_class"
  end
  return risk_class
end

return access
