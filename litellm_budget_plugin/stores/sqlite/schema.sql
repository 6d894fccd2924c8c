-- Version 1. The keys are the ledger's own, compared byte by byte, which for UTF-8 is the order of code points.
-- Amounts are integers in the account's unit, times are microseconds since 1970-01-01 UTC.

-- `models` is a JSON object; `extra` is a JSON list of values that few accounts have (see book.py), NULL in the others. It keeps
-- rows small, because inner pages of a table WITHOUT ROWID contain rows too.
CREATE TABLE accounts (
    project    TEXT NOT NULL,
    scope      TEXT NOT NULL,
    subject    TEXT NOT NULL,
    model      TEXT NOT NULL,
    period     TEXT NOT NULL,
    unit       TEXT NOT NULL,
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    starts_at  INTEGER NOT NULL,
    ends_at    INTEGER,
    pinned     INTEGER NOT NULL,
    own_limit  INTEGER,
    spent      INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    extra      TEXT,
    models     TEXT NOT NULL,
    PRIMARY KEY (project, scope, subject, model, period, unit)
) WITHOUT ROWID;

-- Open holds, and the marks that remain of closed ones. `detail` and `reply` are JSON, NULL in the common mark.
CREATE TABLE holds (
    project TEXT NOT NULL,
    id      TEXT NOT NULL,
    state   TEXT NOT NULL,
    at      INTEGER NOT NULL,
    detail  TEXT,
    reply   TEXT,
    PRIMARY KEY (project, id)
) WITHOUT ROWID;

CREATE INDEX holds_open ON holds (project, at, id) WHERE state = 'open';

CREATE INDEX holds_closed ON holds (project, at) WHERE state <> 'open';

CREATE TABLE usage (
    project       TEXT NOT NULL,
    scope         TEXT NOT NULL,
    subject       TEXT NOT NULL,
    day           INTEGER NOT NULL,
    model         TEXT NOT NULL,
    spent         INTEGER NOT NULL,
    calls         INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    refusals      INTEGER NOT NULL,
    unsettled     INTEGER NOT NULL,
    PRIMARY KEY (project, scope, subject, day, model)
) WITHOUT ROWID;

CREATE INDEX usage_days ON usage (project, day) WHERE day > 0;
