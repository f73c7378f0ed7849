-- Restores a whole fact as it was elsewhere: id, version, times, history, expiry, parts and, when they are given, vectors.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, number, generation, dry_run, mode ("skip", "overwrite", "newer" or "error"), fact_id, digest,
--          content, metadata, tags, source, principals, document, version, created_at, updated_at, expires_at,
--          history (JSON texts, newest first), revision, labels, passages, sections, due, nonce (names this very request),
--          displaces (the fact that the content is taken away from, or "")
-- ARGV[2…] the vectors of the passages in their order, or none
-- Reply    {"restored" | "replaced", fact_id, version, indexed} when it was written, else {status, fact_id, version} of
--          what is there: "same" (this very fact), "kept" (the mode keeps it), "conflict" (the mode refuses it, or the
--          id is a document's), "duplicate" (another fact has the content; with "1" when another version of
--          the fact itself is there); {"expired", fact_id, version} when the
--          fact is out of date already

local COMPARED = {
  'digest', 'version', 'created_at', 'updated_at', 'expires_at', 'metadata', 'tags', 'source', 'principals'}

local function is_same(fact)
  for _, field in ipairs(COMPARED) do
    if fact[field] ~= request[field] then return false end
  end
  return true
end

local function is_newer(fact)
  local own, other = tonumber(request.updated_at), tonumber(fact.updated_at)
  if own ~= other then return own > other end
  return tonumber(request.version) > tonumber(fact.version)
end

-- The server indexes a hash with each write, so a vector goes along with its passage.
local function write_parts_with_vectors(fact_id, fact)
  for position, text in ipairs(request.passages) do
    write_hash(passage_key(fact_id, fact.revision, position - 1), fact_id, fact,
      'text', text, 'vector', ARGV[position + 1])
  end
  local passages = request.passages
  request.passages = {}
  write_parts(fact_id, fact)
  request.passages = passages
  redis.call('HINCRBY', root .. 'counters', 'passages', #passages)
end

-- What has expired is removed, unless nothing may be changed.
local function read_current(fact_id)
  if not request.dry_run then return read_live_fact(fact_id) end
  local fact = read_fact(fact_id)
  return fact and not is_expired(fact) and fact or nil
end

if is_expired(request) then return {'expired', request.fact_id, request.version} end
local existing = read_current(request.fact_id)
if existing then
  local reply = {request.fact_id, existing.version, existing.indexed}
  if given(existing.document) then return {'conflict', unpack(reply)} end
  -- Its reply was lost, and it came again.
  if existing.nonce == request.nonce then return {'restored', unpack(reply)} end
  if is_same(existing) then return {'same', unpack(reply)} end
  if request.mode == 'error' then return {'conflict', unpack(reply)} end
  if request.mode == 'skip' or (request.mode == 'newer' and not is_newer(existing)) then
    return {'kept', unpack(reply)}
  end
end

local owner = redis.call('HGET', root .. 'contents', request.digest)
if owner and owner ~= request.fact_id and owner ~= request.displaces then
  local owned = read_current(owner)
  if owned then return {'duplicate', owner, owned.version, existing and '1' or '0'} end
end
if request.dry_run then return {existing and 'replaced' or 'restored', request.fact_id, request.version} end

local fact = {
  document = request.document, revision = request.revision, expires_at = request.expires_at,
  created_at = request.created_at, updated_at = request.updated_at,
}
if existing then
  -- It keeps its place, so that whoever walks through all facts meets it once.
  fact.seq = existing.seq
  remove_fact(request.fact_id, existing)
else
  fact.seq = redis.call('HINCRBY', root .. 'counters', 'seq', 1)
end
-- Whoever empties the server under a running process takes the record of its index along.
if redis.call('EXISTS', root .. 'generation') == 0 then
  redis.call('HSET', root .. 'generation', 'number', request.generation.number,
    'model', request.generation.model, 'dimension', request.generation.dimension, 'build', request.generation.build)
end
local has_vectors = #ARGV > 1
local indexed = has_vectors and '1' or '0'
redis.call('HSET', KEYS[1], 'content', request.content, 'metadata', request.metadata, 'tags', request.tags,
  'source', request.source, 'principals', request.principals, 'document', request.document,
  'digest', request.digest, 'version', request.version, 'revision', request.revision,
  'passages', #request.passages, 'sections', #request.sections,
  'seq', fact.seq, 'created_at', request.created_at, 'updated_at', request.updated_at,
  'expires_at', request.expires_at, 'indexed', indexed, 'nonce', request.nonce)
for _, version in ipairs(request.history) do
  redis.call('RPUSH', root .. 'history:' .. request.fact_id, version)
end
redis.call('HSET', root .. 'contents', request.digest, request.fact_id)
redis.call('ZADD', root .. 'facts', fact.seq, request.fact_id)
if not has_vectors then
  redis.call('ZADD', root .. 'pending', request.due, request.fact_id)
  redis.call('ZADD', root .. 'inserts', tonumber(request.now) + LATEST_INSERT_MS,
    request.fact_id .. ':' .. request.revision)
end
if given(request.expires_at) then
  redis.call('ZADD', root .. 'expiring', request.expires_at, request.fact_id)
end
list_among_visible(request.fact_id, fact.seq, request.principals, true)
count_labels(request.tags, request.source, 1)
if has_vectors then write_parts_with_vectors(request.fact_id, fact) else write_parts(request.fact_id, fact) end
note_change(request.fact_id)
return {existing and 'replaced' or 'restored', request.fact_id, request.version, indexed}
