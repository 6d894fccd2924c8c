-- name: accounts
SELECT model, period, unit, id, created_at, starts_at, ends_at, pinned, own_limit, spent, held, epoch, extra, models
FROM accounts WHERE project = ? AND scope = ? AND subject = ?

-- name: put_account
INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (project, scope, subject, model, period, unit) DO UPDATE SET
    id = excluded.id, created_at = excluded.created_at, starts_at = excluded.starts_at, ends_at = excluded.ends_at,
    pinned = excluded.pinned, own_limit = excluded.own_limit, spent = excluded.spent, held = excluded.held,
    epoch = excluded.epoch, extra = excluded.extra, models = excluded.models

-- name: drop_account
DELETE FROM accounts WHERE project = ? AND scope = ? AND subject = ? AND model = ? AND period = ? AND unit = ?

-- name: hold
SELECT id, state, at, detail, reply FROM holds WHERE project = ? AND id = ?

-- name: due
SELECT id, state, at, detail, reply FROM holds
WHERE project = ? AND state = 'open' AND at <= ? ORDER BY at, id LIMIT ?

-- name: open_holds
SELECT id, state, at, detail, reply FROM holds WHERE project = ? AND state = 'open' ORDER BY id

-- name: put_hold
INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (project, id) DO UPDATE SET
    state = excluded.state, at = excluded.at, detail = excluded.detail, reply = excluded.reply

-- name: usage
SELECT spent, calls, input_tokens, output_tokens, refusals, unsettled FROM usage
WHERE project = ? AND scope = ? AND subject = ? AND day = ? AND model = ?

-- name: add_usage
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (project, scope, subject, day, model) DO UPDATE SET
    spent = spent + excluded.spent, calls = calls + excluded.calls, input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens, refusals = refusals + excluded.refusals,
    unsettled = unsettled + excluded.unsettled

-- name: subjects
SELECT DISTINCT subject FROM accounts WHERE project = ? AND scope = ? AND subject > ? ORDER BY subject LIMIT ?

-- name: usage_of_scope
SELECT scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled FROM usage
WHERE project = ? AND scope = ? AND day BETWEEN ? AND ? ORDER BY scope, subject, day, model

-- name: usage_of_subject
SELECT scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled FROM usage
WHERE project = ? AND scope = ? AND subject = ? AND day BETWEEN ? AND ? ORDER BY scope, subject, day, model

-- name: forget
DELETE FROM holds WHERE project = ? AND state <> 'open' AND at < ?

-- name: fold
INSERT INTO usage
SELECT project, scope, subject, 0, model, sum(spent), sum(calls), sum(input_tokens), sum(output_tokens), sum(refusals),
       sum(unsettled)
FROM usage WHERE project = ? AND day > 0 AND day < ? GROUP BY project, scope, subject, model
ON CONFLICT (project, scope, subject, day, model) DO UPDATE SET
    spent = spent + excluded.spent, calls = calls + excluded.calls, input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens, refusals = refusals + excluded.refusals,
    unsettled = unsettled + excluded.unsettled

-- name: folded
DELETE FROM usage WHERE project = ? AND day > 0 AND day < ?

-- name: projects
SELECT project FROM accounts UNION SELECT project FROM holds UNION SELECT project FROM usage ORDER BY 1

-- name: accounts_from
SELECT scope, subject, model, period, unit, id, created_at, starts_at, ends_at, pinned, own_limit, spent, held, epoch, extra,
       models
FROM accounts WHERE project = ? AND (scope, subject, model, period, unit) >= (?, ?, ?, ?, ?)
ORDER BY scope, subject, model, period, unit LIMIT ?

-- name: holds_from
SELECT id, state, at, detail, reply FROM holds WHERE project = ? AND id >= ? ORDER BY id LIMIT ?

-- name: usage_from
SELECT scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled FROM usage
WHERE project = ? AND (scope, subject, day, model) >= (?, ?, ?, ?) ORDER BY scope, subject, day, model LIMIT ?
