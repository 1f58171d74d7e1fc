package integration

import (
	"fmt"
	"strings"
	"testing"
)

// newReplica makes a server that gives no logical replication.
func newReplica(t testing.TB) *pgServer {
	t.Helper()
	pg := newPostgres(t)
	must(t, pg.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(pg.port), "-U", "postgres", "-qc", "ALTER SYSTEM SET wal_level = replica")
	pg.halt()
	pg.up()
	return pg
}

// TestSQLSaysWhatHelps: `spookgw status` names the statement that is missing, and forgets it when all is well.
func TestSQLSaysWhatHelps(t *testing.T) {
	d := newDataPlantOn(t, newReplica(t), rowSchema+`ALTER TABLE audit DROP CONSTRAINT audit_pkey`, rowMapping, "")
	d.start()
	eventually(t, "status says what helps", func() bool {
		return strings.Contains(d.cli("status"), "ALTER SYSTEM SET wal_level = logical")
	})
	d.pg.sql("ALTER SYSTEM SET wal_level = logical")
	d.pg.halt()
	d.pg.up()
	d.stands(1)
	eventually(t, "status says what helps the table", func() bool {
		out := d.cli("status")
		return !strings.Contains(out, "wal_level") && strings.Contains(out, `ALTER TABLE "public"."audit" ADD PRIMARY KEY ("id")`)
	})
	d.pg.sql(`ALTER TABLE audit ADD PRIMARY KEY (id); INSERT INTO audit (what) VALUES ('now')`)
	d.becomes("audit/1", `{"what":"now"}`)
	if out := d.cli("status"); strings.Contains(out, "TROUBLE") {
		t.Errorf("it still says so:\n%s", out)
	}
}

// TestSQLStatements: without logical replication rows and registers still come to agree, both ways, and over a kill.
func TestSQLStatements(t *testing.T) {
	d := newDataPlantOn(t, newReplica(t), rowSchema+`INSERT INTO sensors VALUES ('berlin', 'old', 1)`, rowMapping, "capture = \"statements\"\n  poll_ms = 500")
	d.program = plainProgram(t)
	d.start()
	d.equal()
	if out := d.cli("status"); !strings.Contains(out, "statements are captured, not rows") {
		t.Errorf("status does not say what is missing:\n%s", out)
	}
	d.pg.through(d.port, `INSERT INTO sensors VALUES ('berlin', 'a', 2); UPDATE sensors SET unit = 'C' WHERE name = 'old'`)
	d.becomes("site/berlin/a", `{"value":2}`)
	d.equal()
	by := d.history("site/berlin/a")[0].Cause
	if by.Principal != "sql/erp:postgres" || by.Verified {
		t.Errorf("who: got %+v", by)
	}
	if status, _, body := request(t, d.client, "PUT", d.httpURL()+"/v1/berlin/web", `{"value":5}`); status/100 != 2 {
		t.Fatalf("PUT: %d %s", status, body)
	}
	eventually(t, "the row", func() bool {
		return d.pg.sql(`SELECT value, private FROM sensors WHERE name = 'web'`) == "5|keep"
	})
	d.pg.sql(`UPDATE sensors SET value = value + 1; DELETE FROM sensors WHERE name = 'a'`) // behind its back
	d.equal()
	for n := range 2 {
		d.pg.through(d.port, fmt.Sprintf(`INSERT INTO sensors SELECT 'load', 'r' || i, %d FROM generate_series(1, 50) i ON CONFLICT (site, name) DO UPDATE SET value = excluded.value`, n))
		d.kill()
		d.pg.sql(fmt.Sprintf(`DELETE FROM sensors WHERE name = 'r%d'; UPDATE sensors SET value = -1 WHERE name = 'r%d'`, n+1, n+10))
		d.start()
		d.equal() // what was there before it is known is nobody's to write over
		request(t, d.client, "PUT", d.httpURL()+"/v1/load/r40", fmt.Sprintf(`{"value":%d}`, 1000+n))
		eventually(t, "the row", func() bool {
			return d.pg.sql(`SELECT value FROM sensors WHERE name = 'r40'`) == fmt.Sprint(1000+n)
		})
	}
	d.equal()
	request(t, d.client, "DELETE", d.httpURL()+"/v1/berlin/web", "")
	eventually(t, "the row is gone", func() bool { return d.pg.sql(`SELECT count(*) FROM sensors WHERE name = 'web'`) == "0" })
	d.equal()
	d.wantHistory("site/berlin/web", 3)
}
