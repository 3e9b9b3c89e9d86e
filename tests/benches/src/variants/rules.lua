-- The rule table above this line is generated; the steps are those of
-- `Rules::decide`, in the same order. Counters stay in the VM, as Envoy's Lua
-- has no metrics.

local find, gmatch, lower, match, sub = string.find, string.gmatch, string.lower, string.match, string.sub
local SCHEMES = {bearer = true, token = true}
local counts = {}

local function count(outcome)
  counts[outcome] = (counts[outcome] or 0) + 1
end

local function refuse(handle, status, reason)
  count(reason)
  handle:respond(
    {[":status"] = status, ["content-type"] = "application/json"},
    '{"error":"refused","reason":"' .. reason .. '"}')
end

local function query_authenticates(path)
  local start = find(path, "?", 1, true)
  if not start then
    return false
  end
  for name in gmatch(sub(path, start + 1), "([^&=]+)[^&]*") do
    if AUTH_PARAMETERS[name] then
      return true
    end
  end
  return false
end

function envoy_on_request(handle)
  local headers = handle:headers()

  local destination = DESTINATIONS[headers:get(":authority")]
  if not destination then
    return refuse(handle, "403", "host_not_allowed")
  end
  local path = headers:get(":path")
  local prefix = destination.prefix
  if sub(path, 1, #prefix) ~= prefix then
    return refuse(handle, "403", "path_not_allowed")
  end
  if query_authenticates(path) then
    return refuse(handle, "403", "credential_in_query")
  end

  local authorization = headers:get("authorization")
  local scheme, token
  if authorization then
    scheme, token = match(authorization, "^(%a+) (.+)$")
  end
  local grant = scheme and SCHEMES[lower(scheme)] and GRANTS[token]
  if not grant then
    return refuse(handle, "401", "placeholder_unknown")
  end
  if grant.destination ~= destination.id then
    return refuse(handle, "403", "placeholder_misplaced")
  end
  if grant.read_only and not READS[headers:get(":method")] then
    return refuse(handle, "403", "read_only")
  end

  for i = 1, #AUTH_HEADERS do
    headers:remove(AUTH_HEADERS[i])
  end
  headers:replace("authorization", grant.authorization)
  count("injected")
end
