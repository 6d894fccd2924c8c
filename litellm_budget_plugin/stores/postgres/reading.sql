-- The statements that read rows, by name. Each returns one JSON value, and takes no lock.

-- Sent before statements outside of a transaction, so that they use an index even if statistics are old.
-- name: by_index
SELECT set_config('enable_seqscan', 'off', true)

-- name: view
WITH clock AS MATERIALIZED (
    SELECT coalesce($2::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS now
)
SELECT json_build_array(
    now,
    coalesce((SELECT at FROM ledger.holds WHERE project = $1 AND state = 'open' ORDER BY at LIMIT 1) <= now, false),
    (SELECT json_agg(to_json(a)) FROM ledger.accounts a WHERE project = $1 AND owner = ANY ($3::uuid[])),
    (SELECT json_agg(to_json(h)) FROM ledger.holds h
     WHERE project = $1 AND id = ANY (ARRAY(SELECT jsonb_array_elements_text($4::jsonb))))
) FROM clock

-- name: page
WITH clock AS MATERIALIZED (
    SELECT coalesce($2::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS now
), page AS MATERIALIZED (
    SELECT DISTINCT left(subject, 64), subject, owner FROM ledger.accounts
    WHERE project = $1 AND left(scope, 64) = left($3::text, 64) AND scope = $3
        AND left(subject, 64) >= left($4::text, 64) AND subject > $4
    ORDER BY 1, 2 LIMIT $5::bigint
)
SELECT json_build_array(
    now,
    coalesce((SELECT at FROM ledger.holds WHERE project = $1 AND state = 'open' ORDER BY at LIMIT 1) <= now, false),
    (SELECT json_agg(to_json(a)) FROM ledger.accounts a WHERE project = $1 AND owner = ANY (ARRAY(SELECT owner FROM page))),
    NULL, (SELECT json_agg(subject ORDER BY subject) FROM page)
) FROM clock

-- name: due
SELECT json_agg(to_json(h)) FROM (
    SELECT * FROM ledger.holds WHERE project = $1 AND state = 'open' AND at <= $2
    ORDER BY at, coalesce(full_id, id) LIMIT $3::bigint
) h

-- name: open_holds
SELECT json_agg(to_json(h) ORDER BY coalesce(full_id, id)) FROM ledger.holds h WHERE project = $1 AND state = 'open'

-- name: one_usage
SELECT json_agg(to_json(u)) FROM ledger.usage u WHERE project = $1 AND owner = $2 AND day = $3 AND model = $4

-- name: usage_of_subject
SELECT json_agg(to_json(u) ORDER BY day, model) FROM ledger.usage u
WHERE project = $1 AND scope = $2 AND subject = $5 AND owner = $6 AND day BETWEEN $3 AND $4

-- name: usage_of_scope
SELECT json_agg(to_json(u) ORDER BY subject, day, model) FROM ledger.usage u
WHERE project = $1 AND scope = $2 AND day BETWEEN $3 AND $4

-- name: projects
SELECT json_agg(project ORDER BY project) FROM (
    SELECT project FROM ledger.accounts UNION SELECT project FROM ledger.holds UNION SELECT project FROM ledger.usage
) projects
