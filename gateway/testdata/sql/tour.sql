-- What people do with psql.
\d
\d sensors
\d plant.orders
\dn
\l
INSERT INTO sensors (site, sensor, value, unit, at) VALUES ('berlin', 'oven-1', 21.5, 'C', '2026-01-31 12:00+01'), ('berlin', 'oven-2', 180, 'C', NULL), ('munich', 'kiln', 900, DEFAULT, '2026-02-01') RETURNING *;
SELECT * FROM sensors ORDER BY site, sensor;
INSERT INTO sensors (site, sensor, value) VALUES ('berlin', 'oven-1', 1);
INSERT INTO sensors (site, sensor, value) VALUES ('berlin', 'oven-1', 1) ON CONFLICT DO NOTHING;
INSERT INTO sensors (site, sensor, value) VALUES ('berlin', 'oven-1', 1.25) ON CONFLICT (site, sensor) DO UPDATE SET value = sensors.value + excluded.value WHERE sensors.value < 100 RETURNING value;
INSERT INTO sensors AS s (site, sensor, value) VALUES ('berlin', 'oven-2', 1) ON CONFLICT (sensor, site) DO UPDATE SET value = excluded.value WHERE s.value < 100 RETURNING value;
UPDATE sensors SET value = value + 1, unit = lower(unit) WHERE site = 'berlin' RETURNING sensor, value, unit;
UPDATE sensors SET (value, unit) = (5, 'K') WHERE sensor = 'kiln';
UPDATE sensors SET sensor = 'oven-9' WHERE sensor = 'oven-2' RETURNING *;
UPDATE sensors SET sensor = 'oven-1' WHERE sensor = 'oven-9';
DELETE FROM sensors WHERE sensor = 'oven-9' RETURNING value;
-- Queries.
SELECT site, count(*), sum(value), avg(value), min(at) FROM sensors GROUP BY site HAVING count(*) > 0 ORDER BY 2 DESC, site;
INSERT INTO plant.orders VALUES (1, 'berlin', 'new', '{"b": 1, "a": [1, 2, null]}', true, '\xdeadbeef'), (2, 'munich', 'done', '[]', false, NULL), (3, 'paris', 'new', NULL, NULL, NULL);
SELECT o.id, s.sensor, o.state FROM plant.orders o LEFT JOIN sensors s ON s.site = o.site ORDER BY o.id;
SELECT * FROM plant.orders ORDER BY id;
WITH busy AS (SELECT site, count(*) AS n FROM sensors GROUP BY site), open AS (SELECT site FROM plant.orders WHERE state = 'new') SELECT b.site, n FROM busy b JOIN open USING (site);
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t;
SELECT sensor, row_number() OVER (ORDER BY value DESC) AS place, value::int FROM sensors ORDER BY place;
SELECT id FROM plant.orders WHERE state = 'new' UNION SELECT 7 EXCEPT SELECT 3 ORDER BY id;
SELECT * FROM sensors WHERE site IN (SELECT site FROM plant.orders) AND EXISTS (SELECT 1 FROM plant.orders o WHERE o.site = sensors.site AND NOT o.urgent);
SELECT details->'a'->1 AS item, details->>'b' AS b FROM plant.orders WHERE details IS NOT NULL ORDER BY id LIMIT 1;
SELECT string_agg(sensor, ', ' ORDER BY sensor), array_agg(value ORDER BY sensor), bool_or(unit = 'K') FROM sensors;
SELECT CASE state WHEN 'new' THEN 1 ELSE 0 END, coalesce(urgent, false), urgent IS NOT TRUE FROM plant.orders ORDER BY id;
SELECT 'Oven' ILIKE 'o%', 'a_b' LIKE 'a\_b', 'abc' ~ '^A', 'abc' ~* '^A', E'tab\there', $$it's$$, $q$dollar $$ quoted$q$;
SELECT 7 / 2, 7 / 2.0, -7 % 3, 2 ^ 10, 0.1 + 0.2, round(2.567, 2), 5::numeric / 3, 'x' || 1 || true;
SELECT '2026-03-01'::date - '2026-02-01'::date, timestamptz '2026-01-31 10:00Z' + interval '1 month', extract(hour from timestamp '2026-01-01 17:30'), date_trunc('month', timestamptz '2026-05-17 10:00Z');
SET TIME ZONE 'Europe/Berlin';
SELECT at FROM sensors WHERE sensor = 'oven-1';
RESET TIME ZONE;
SELECT NULL, true AND NOT false, 1 = ANY ('{1,2}'), 3 BETWEEN 1 AND 5, ARRAY[1, 2], (ARRAY['a', 'b'])[2], pg_typeof(1.5);
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (n, c) ORDER BY n DESC;
SELECT x FROM generate_series(1, 3) AS x OFFSET 1;
-- Transactions.
BEGIN;
UPDATE sensors SET value = 0;
SAVEPOINT a;
DELETE FROM sensors;
INSERT INTO sensors (site, sensor, value) VALUES ('oslo', 'x', 1);
SELECT count(*) FROM sensors;
ROLLBACK TO a;
SELECT count(*), sum(value) FROM sensors;
SELECT 1 / 0;
SELECT 1;
ROLLBACK TO SAVEPOINT a;
SELECT 1;
ROLLBACK;
SELECT sum(value) FROM sensors;
BEGIN READ ONLY;
DELETE FROM sensors;
COMMIT;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SHOW transaction_isolation;
END;
-- COPY.
COPY sensors (site, sensor, value) FROM STDIN;
rome	r1	1
rome	r\\2 \"x\"	2.5
\.
COPY sensors FROM STDIN WITH (FORMAT csv, HEADER);
sensor,site,value,unit,at
"a ""quoted"" one",rome,3,"x,y",2026-01-01T00:00:00Z
\.
COPY (SELECT site, sensor, value, unit FROM sensors WHERE site = 'rome' ORDER BY sensor) TO STDOUT;
COPY (SELECT site, sensor, value, unit FROM sensors WHERE site = 'rome' ORDER BY sensor) TO STDOUT CSV HEADER;
COPY sensors (site, sensor, value) FROM STDIN;
rome	r3	notanumber
\.
SELECT count(*) FROM sensors WHERE site = 'rome';
-- Cursors and prepared statements.
BEGIN;
DECLARE c CURSOR FOR SELECT sensor FROM sensors ORDER BY sensor;
FETCH 2 FROM c;
MOVE 1 FROM c;
FETCH ALL FROM c;
CLOSE c;
COMMIT;
PREPARE p (text) AS SELECT sensor FROM sensors WHERE site = $1 ORDER BY sensor;
EXECUTE p ('rome');
DEALLOCATE p;
EXECUTE p ('rome');
-- What is wrong, and says so.
SELECT * FROM nope;
SELECT nope FROM sensors;
SELECT s.nope FROM sensors s;
SELECT x.value FROM sensors s;
SELECT nope(1);
SELECT site FROM sensors a JOIN sensors b ON true;
SELEC 1;
SELECT 'unterminated
';
SELECT 'abc'::int;
SELECT 99999999999::int;
SELECT '2026-99-01'::date;
INSERT INTO sensors (site, nope) VALUES ('a', 1);
INSERT INTO sensors (site, value) VALUES ('a', 1);
INSERT INTO sensors (site, sensor) VALUES ('a', 'b');
INSERT INTO sensors (site, sensor, value) VALUES ('a', 'b', 'c');
INSERT INTO sensors (site, sensor, value) VALUES ('a', '', 1);
INSERT INTO pg_class VALUES (1);
CREATE TABLE x (a int);
DROP TABLE sensors;
ALTER TABLE sensors ADD COLUMN x int;
SELECT DISTINCT ON (site) * FROM sensors;
SELECT * FROM sensors, LATERAL (SELECT 1) x;
MERGE INTO sensors USING plant.orders ON true WHEN MATCHED THEN DELETE;
SET nope = 1;
SET search_path = plant, public;
SELECT count(*) FROM orders;
RESET ALL;
SELECT count(*) FROM orders;
TRUNCATE sensors;
SELECT count(*) FROM sensors;
-- What drivers ask.
SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid FROM ( SELECT typ.oid, typ.typnamespace, typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.relkind, elemtyp.oid AS elemtypoid, elemtyp.typname AS elemtypname, elemcls.relkind AS elemrelkind, CASE WHEN elemproc.proname='array_recv' THEN 'a' ELSE elemtyp.typtype END AS elemtyptype FROM ( SELECT typ.oid, typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid, CASE WHEN proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype, CASE WHEN proc.proname='array_recv' THEN typ.typelem WHEN typ.typtype='r' THEN rngsubtype WHEN typ.typtype='m' THEN (SELECT rngtypid FROM pg_range WHERE rngmultitypid = typ.oid) WHEN typ.typtype='d' THEN typ.typbasetype END AS elemtypoid FROM pg_type AS typ LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid) LEFT JOIN pg_proc AS proc ON proc.oid = typ.typreceive LEFT JOIN pg_range ON (pg_range.rngtypid = typ.oid) ) AS typ LEFT JOIN pg_type AS elemtyp ON elemtyp.oid = elemtypoid LEFT JOIN pg_class AS elemcls ON (elemcls.oid = elemtyp.typrelid) LEFT JOIN pg_proc AS elemproc ON elemproc.oid = elemtyp.typreceive ) AS t JOIN pg_namespace AS ns ON (ns.oid = typnamespace) WHERE (typtype IN ('b', 'r', 'm', 'e', 'd') OR (typtype = 'c' AND relkind='c') OR (typtype = 'p' AND typname IN ('record', 'void', 'unknown')) OR (typtype = 'a' AND ( elemtyptype IN ('b', 'r', 'm', 'e', 'd') OR (elemtyptype = 'p' AND elemtypname IN ('record', 'void', 'unknown')) OR (elemtyptype = 'c' AND elemrelkind='c') ))) ORDER BY CASE WHEN typtype IN ('b', 'e', 'p') THEN 0 WHEN typtype = 'r' THEN 1 ELSE 2 END LIMIT 3;
SELECT typinput='pg_catalog.array_in'::regproc as is_array, typtype, typname, pg_type.oid FROM pg_catalog.pg_type LEFT JOIN (select ns.oid as nspoid, ns.nspname, r.r from pg_namespace as ns join ( select s.r, (current_schemas(false))[s.r] as nspname from generate_series(1, array_upper(current_schemas(false), 1)) as s(r) ) as r using ( nspname ) ) as sp ON sp.nspoid = typnamespace WHERE typname = '_text' ORDER BY sp.r, pg_type.oid DESC LIMIT 1;
SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME, CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema' WHEN true THEN 'SYSTEM' WHEN false THEN CASE c.relkind WHEN 'r' THEN 'TABLE' ELSE NULL END ELSE NULL END AS TABLE_TYPE, d.description AS REMARKS FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0 and d.classoid = 'pg_class'::regclass) LEFT JOIN pg_catalog.pg_namespace dn ON (dn.nspname='pg_catalog') WHERE c.relnamespace = n.oid AND c.relname LIKE 'count%' AND c.relkind = 'r' ORDER BY TABLE_TYPE,TABLE_SCHEM,TABLE_NAME;
SELECT t.typname, t.oid, t.typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE t.typtype = ANY(ARRAY['b','r']) AND ns.nspname='pg_catalog' AND NOT t.typname LIKE '\_%' ORDER BY 1 LIMIT 2;
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), i.indisprimary FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indrelid = 'public.counts'::regclass AND i.indisprimary;
\di
\dv
\df
-- What was found by comparing with PostgreSQL.
SELECT -2 ^ 2, 2 ^ 3 ^ 2, - 5 + 3, '2026-01-31'::date + 1, true::text, true::int, timestamp '2026-07-01 10:00' AT TIME ZONE 'Europe/Berlin';
SELECT jsonb_build_object('k', 1, 't', 'v', 'n', null), jsonb_build_array(1, 'x'), '{"b": 1, "aa": 2, "a": 3}'::jsonb;
SELECT 1 UNION ALL SELECT 2 INTERSECT SELECT 2;
SELECT greatest(1, NULL, 3), NULL = NULL, 5 % -3, 'ab' < 'b', round(-2.5), 2.5::int, 'a' || NULL;
-- Functions that give rows, in a list.
SELECT unnest(ARRAY['a','b']) AS x, generate_series(1, 3) AS n, 'same' AS s;
SELECT site, unnest(string_to_array('x,y', ',')) AS part FROM (VALUES ('rome'), ('oslo')) v(site) ORDER BY 1, 2 DESC LIMIT 3;
SELECT unnest('{}'::text[]) AS none;
SELECT generate_subscripts(ARRAY['p','q'], 1), unnest(ARRAY[10,20]) + 1 AS more;
SELECT (information_schema._pg_expandarray(ARRAY[7,8])).n AS n, (information_schema._pg_expandarray(ARRAY[7,8])).x AS x, information_schema._pg_expandarray(ARRAY[7,8]) AS both;
SELECT r.n, (r.k).x FROM (SELECT generate_series(5, 1, -2) AS n, information_schema._pg_expandarray('{4,5,6}'::int[]) AS k) r WHERE (r.k).n > 1;
SELECT DISTINCT unnest(ARRAY[1,1,2]) AS d ORDER BY 1;
SELECT count(*) FROM (SELECT unnest(ARRAY[1,2,3])) s(v) WHERE v > 1;
