-- Reads whole facts: each with its history and, when asked for, its passages and their vectors, as they belong together.
--
-- KEYS[1]  the hash of the live generation
-- ARGV     root ("kb:{namespace}:"), bytes after which the reply ends, "1" for vectors, the facts
-- Reply    {model, dimension, for each fact {content, metadata, tags, source, principals, document, version, seq,
--          created_at, updated_at, expires_at, revision, passages, history, {text, vector, text, …}}}; at least the first
--          fact, the last ones may be left out; false for one that is not there

local root, most, with_vectors = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local call = redis.call
local live = call('HMGET', KEYS[1], 'number', 'model', 'dimension')
local reply, size = {live[2], live[3]}, 0

local function passages_of(fact_id, revision, passages)
  local parts = {}
  local prefix = root .. 'passage:' .. live[1] .. ':' .. fact_id .. ':' .. revision .. ':'
  for position = 0, tonumber(passages) - 1 do
    local part = call('HMGET', prefix .. position, 'text', 'vector')
    -- What waits for a vector is exported without any.
    if not part[1] or not part[2] then return {} end
    parts[#parts + 1], parts[#parts + 2] = part[1], part[2]
    size = size + #part[1] + #part[2]
  end
  return parts
end

for at = 4, #ARGV do
  local fact_id = ARGV[at]
  local row = call('HMGET', root .. 'fact:' .. fact_id, 'content', 'metadata', 'tags', 'source', 'principals', 'document',
    'version', 'seq', 'created_at', 'updated_at', 'expires_at', 'revision', 'passages')
  if row[1] then
    local history = call('LRANGE', root .. 'history:' .. fact_id, 0, -1)
    size = size + #row[1] + #row[2]
    for _, version in ipairs(history) do size = size + #version end
    row[14] = history
    row[15] = with_vectors and live[1] and passages_of(fact_id, row[12], row[13]) or {}
  else
    row = false
  end
  reply[at - 1] = row
  if size >= most then break end
end
return reply
