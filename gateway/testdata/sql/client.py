"""What psycopg does by default: server-side cursors, COPY, errors by class, arrays, isolation levels."""
import io, sys
import psycopg2, psycopg2.errors, psycopg2.extras

c = psycopg2.connect(host=sys.argv[1], port=sys.argv[2], dbname="plant", user="tester")
cur = c.cursor()
cur.execute("INSERT INTO sensors (site, sensor, value, at) VALUES (%s, %s, %s, '2026-01-31 12:00Z') RETURNING value, at", ("py", "x", 1.25))
value, at = cur.fetchone()
assert float(value) == 1.25 and at.isoformat() == "2026-01-31T12:00:00+00:00", (value, at)
c.commit()
try:
    cur.execute("SELECT nope")
    raise SystemExit("no error")
except psycopg2.errors.UndefinedColumn:
    pass
try:
    cur.execute("SELECT 1")
    raise SystemExit("no error")
except psycopg2.errors.InFailedSqlTransaction:
    c.rollback()
cur.copy_from(io.StringIO("".join(f"py\tc{i}\t{i}\n" for i in range(500))), "sensors", columns=("site", "sensor", "value"))
c.commit()
named = c.cursor("named")
named.itersize = 50
named.execute("SELECT sensor FROM sensors WHERE site = ANY(%s)", (["py", "no"],))
assert len(list(named)) == 501
c.rollback()
out = io.StringIO()
cur.copy_expert("COPY (SELECT sensor, value FROM sensors WHERE value < 2 ORDER BY sensor) TO STDOUT WITH CSV HEADER", out)
assert out.getvalue() == "sensor,value\nc0,0\nc1,1\nx,1.25\n", out.getvalue()
psycopg2.extras.execute_values(cur, "INSERT INTO sensors (site, sensor, value) VALUES %s", [("v", str(i), i) for i in range(250)])
c.rollback()
cur.execute("SELECT count(*) FROM sensors WHERE site = 'v'")
assert cur.fetchone() == (0,)
c.rollback()
a, b = (psycopg2.connect(host=sys.argv[1], port=sys.argv[2], dbname="plant", user="tester") for _ in range(2))
ca, cb = a.cursor(), b.cursor()
for x in (ca, cb):
    x.execute("SELECT value FROM sensors WHERE site = 'py' AND sensor = 'x'")
ca.execute("UPDATE sensors SET value = 2 WHERE sensor = 'x'")
a.commit()
try:
    cb.execute("UPDATE sensors SET value = 3 WHERE sensor = 'x'")
    b.commit()
    raise SystemExit("an update was lost")
except psycopg2.errors.SerializationFailure:
    b.rollback()
print("ok")
