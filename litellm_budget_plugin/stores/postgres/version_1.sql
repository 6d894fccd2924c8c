-- Version 1: the tables of 0.1.0. `ledger` stands for the schema's own name, here and in the other files; see migrating.py.
--
-- The keys are the ledger's own, compared byte by byte, which for UTF-8 is the order of code points. Amounts are integers in the
-- account's unit, times are microseconds since 1970-01-01 UTC. Names and meanings are those of core/accounts.py.

-- Each call updates a row twice: with room on the page, these updates do not touch the indexes (HOT), because no index has a
-- column that they change. The same holds for totals.
CREATE TABLE ledger.accounts (
    project      text COLLATE "C" NOT NULL,
    scope        text COLLATE "C" NOT NULL,
    subject      text COLLATE "C" NOT NULL,
    model        text COLLATE "C" NOT NULL,
    period       text COLLATE "C" NOT NULL,
    unit         text COLLATE "C" NOT NULL,
    id           text NOT NULL,
    created_at   bigint NOT NULL,
    starts_at    bigint NOT NULL,
    ends_at      bigint,
    pinned       boolean NOT NULL DEFAULT false,
    own_limit    bigint,
    spent        bigint NOT NULL DEFAULT 0,
    held         bigint NOT NULL DEFAULT 0,
    epoch        bigint NOT NULL DEFAULT 0,
    blocked      boolean NOT NULL DEFAULT false,
    raised_by    bigint NOT NULL DEFAULT 0,
    raised_until bigint NOT NULL DEFAULT 0,
    carry_over   bigint NOT NULL DEFAULT 0,
    carried      bigint NOT NULL DEFAULT 0,
    dropped      boolean NOT NULL DEFAULT false,
    alerted      bigint NOT NULL DEFAULT 0,
    alert_limit  bigint NOT NULL DEFAULT 0,
    models       jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (project, scope, subject, model, period, unit)
) WITH (fillfactor = 60);

CREATE INDEX accounts_dropped ON ledger.accounts (project) WHERE dropped;

-- Open holds, and the marks that remain of closed ones. A mark keeps only what it needs, because there are many marks.
-- `subjects` is a list of [scope, id], `legs` of [scope, subject, model, period, unit], `charged` of [[scope, id], id, epoch].
CREATE TABLE ledger.holds (
    project      text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    state        text NOT NULL,
    at           bigint NOT NULL,
    usd          bigint,
    calls        bigint,
    tokens       bigint,
    lent_usd     bigint,
    lent_calls   bigint,
    lent_tokens  bigint,
    floor_usd    bigint,
    floor_calls  bigint,
    floor_tokens bigint,
    day          bigint,
    parent       text COLLATE "C",
    model        text,
    subjects     jsonb,
    legs         jsonb,
    charged      jsonb,
    reply        text,
    PRIMARY KEY (project, id)
);

CREATE INDEX holds_open ON ledger.holds (project, at, id) WHERE state = 'open';

CREATE INDEX holds_nested ON ledger.holds (project, parent) WHERE state = 'open' AND parent IS NOT NULL;

-- Only for sweeps, and too small to slow commands down: rows are written in the order of their times.
CREATE INDEX holds_age ON ledger.holds USING brin (at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE ledger.usage (
    project       text COLLATE "C" NOT NULL,
    scope         text COLLATE "C" NOT NULL,
    subject       text COLLATE "C" NOT NULL,
    day           bigint NOT NULL,
    model         text COLLATE "C" NOT NULL,
    spent         bigint NOT NULL,
    calls         bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    refusals      bigint NOT NULL,
    unsettled     bigint NOT NULL,
    PRIMARY KEY (project, scope, subject, day, model)
) WITH (fillfactor = 60);

CREATE INDEX usage_days ON ledger.usage (project, day) WHERE day > 0;
