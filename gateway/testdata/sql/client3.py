"""What psycopg 3 does by default: server-side parameters, prepared statements, pipelines, binary cursors, COPY, notifications."""
import sys
import psycopg
from psycopg.types.json import Jsonb

info = dict(host=sys.argv[1], port=sys.argv[2], dbname="plant", user="tester")
with psycopg.connect(**info) as c:
    with c.cursor() as cur:
        cur.execute("INSERT INTO sensors (site, sensor, value, unit) VALUES (%s, %s, %s, %s) RETURNING sensor, value", ("py3", "a", 1.25, "C"))
        assert cur.fetchone()[0] == "a"
        cur.executemany("INSERT INTO sensors (site, sensor, value) VALUES (%s, %s, %s)", [("py3", f"m{i}", i) for i in range(20)])
        assert cur.rowcount == 20, cur.rowcount
        for i in range(10):  # prepared at the fifth
            cur.execute("SELECT value FROM sensors WHERE site = %s AND sensor = %s", ("py3", f"m{i}"))
            assert cur.fetchone() == (i,)
        cur.execute("INSERT INTO plant.orders (id, details, urgent, scan) VALUES (%s, %s, %s, %s)", (7, Jsonb({"a": [1, None]}), True, b"\x00\xff"))
    c.commit()
    with c.cursor(binary=True) as cur:
        cur.execute("SELECT id, details, urgent, scan FROM plant.orders WHERE id = %s", (7,))
        assert cur.fetchone() == (7, {"a": [1, None]}, True, b"\x00\xff")
        cur.execute("SELECT value, at FROM sensors WHERE site = 'py3' AND sensor = 'a'")
        value, at = cur.fetchone()
        assert float(value) == 1.25 and at is None
    with c.pipeline():
        one = c.execute("SELECT count(*) FROM sensors WHERE site = 'py3'")
        two = c.execute("UPDATE sensors SET value = value + 1 WHERE site = 'py3'")
        assert one.fetchone() == (21,) and two.rowcount == 21
    c.rollback()
    with c.cursor("named") as cur:
        cur.itersize = 5
        cur.execute("SELECT sensor FROM sensors WHERE site = %s ORDER BY sensor", ("py3",))
        assert len(list(cur)) == 21
    c.rollback()
    with c.cursor() as cur:
        with cur.copy("COPY sensors (site, sensor, value) FROM STDIN") as copy:
            for i in range(100):
                copy.write_row(("copied", str(i), i))
        with cur.copy("COPY (SELECT sensor, value FROM sensors WHERE site = 'copied' AND value < 2 ORDER BY value) TO STDOUT") as copy:
            assert list(copy.rows()) == [("0", "0"), ("1", "1")]
    c.commit()
    for text, wrong in (("SELECT nope", psycopg.errors.UndefinedColumn), ("CREATE TABLE t (a int)", psycopg.errors.FeatureNotSupported)):
        try:
            c.execute(text)
            raise SystemExit(text + ": no error")
        except wrong:
            c.rollback()
    try:
        with c.transaction():
            c.execute("DELETE FROM sensors WHERE site = 'copied'")
            with c.transaction():
                c.execute("SELECT 1")
            raise psycopg.Rollback
    except psycopg.Rollback:
        pass
    assert c.execute("SELECT count(*) FROM sensors WHERE site = 'copied'").fetchone() == (100,)

with psycopg.connect(**info, autocommit=True) as c, psycopg.connect(**info, autocommit=True) as other:
    c.execute("LISTEN sensors")
    other.execute("DELETE FROM sensors WHERE site = 'copied' AND sensor = '5'")
    for n in c.notifies():
        assert n.channel == "sensors" and '"delete"' in n.payload, n
        break
print("ok")
