package integration

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const rowMapping = `
register "site/{site}/{sensor}" {
  fields = { value = number, unit = string }
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
  bind "sql" "sensors" {
    key = { site = payload.site, sensor = payload.name }
  }
}
register "audit/{id}" {
  fields = { what = string }
  bind "sql" "audit" {
    key = { id = payload.id }
  }
}
`

const rowSchema = `
CREATE TABLE sensors (site text, name text, value numeric, unit text, private text DEFAULT 'keep', PRIMARY KEY (site, name));
CREATE TABLE audit (id serial PRIMARY KEY, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit (what) VALUES (TG_OP || ' ' || NEW.name); RETURN NEW; END $$;
CREATE FUNCTION bump(n text) RETURNS void LANGUAGE sql AS $$ UPDATE sensors SET value = value + 1 WHERE name = n $$;
`

// A dataPlant is a gateway as a relay in front of a real database, beside an HTTP and an MQTT
// server of its own.
type dataPlant struct {
	*spookgw
	pg     *pgServer
	port   int // of the relay
	client *http.Client
}

func newDataPlant(t testing.TB, schema, mapping, more string) *dataPlant {
	t.Helper()
	return newDataPlantOn(t, newPostgres(t), schema, mapping, more)
}

func newDataPlantOn(t testing.TB, pg *pgServer, schema, mapping, more string) *dataPlant {
	t.Helper()
	d := &dataPlant{pg: pg, port: freePort(t), client: keepAlive(t)}
	must(t, d.pg.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(d.pg.port), "-U", "postgres", "-qc", "CREATE DATABASE plant")
	d.pg.sql(schema)
	d.spookgw = newGateway(t, virtualWrappers+fmt.Sprintf(`
wrapper "sql" "erp" {
  listen   = "127.0.0.1:%d"
  upstream = "postgres://postgres@127.0.0.1:%d/plant"
  %s
}
`, d.port, d.pg.port, more), mapping)
	return d
}

// stands waits until the feed stands, for the n-th time.
func (d *dataPlant) stands(n int) {
	d.t.Helper()
	eventually(d.t, "the feed stands", func() bool {
		return d.metrics()[`spookgw_wrapper_events_total{event="feed_up",wrapper="erp"}`] >= float64(n)
	})
}

// registers gives all registers below a prefix, as JSON.
func (d *dataPlant) registers(prefix string) map[string]string {
	d.t.Helper()
	s := d.state()
	defer s.Close()
	out := map[string]string{}
	for b, err := range s.List(d.t.Context(), prefix, "", 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		if b.Exists {
			out[b.Register] = string(b.Value.AppendJSON(nil))
		}
	}
	return out
}

// rows gives what the registers are to be.
func (d *dataPlant) rows() map[string]string {
	d.t.Helper()
	want := map[string]string{}
	query := `SELECT 'site/' || site || '/' || name, coalesce(value::text, ''), coalesce(unit, '') FROM sensors;`
	for line := range strings.Lines(d.pg.sql(query)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		var members []string
		if f[2] != "" {
			members = append(members, `"unit":`+strconv.Quote(f[2]))
		}
		if f[1] != "" {
			n := f[1]
			if strings.Contains(n, ".") {
				n = strings.TrimSuffix(strings.TrimRight(n, "0"), ".")
			}
			members = append(members, `"value":`+n)
		}
		want[f[0]] = "{" + strings.Join(members, ",") + "}"
	}
	return want
}

// equal waits until the registers are the rows, row by row.
func (d *dataPlant) equal() {
	d.t.Helper()
	var got, want map[string]string
	if within(patience, func() bool {
		got, want = d.registers("site/"), d.rows()
		return maps.Equal(got, want)
	}) {
		return
	}
	for k, v := range want {
		if got[k] != v {
			d.t.Errorf("%s: the register is %s, the row %s\n%s", k, got[k], v, d.cli("explain", k))
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			d.t.Errorf("%s: the register is %s, and there is no row\n%s\n%s", k, v, d.cli("explain", k), d.cli("history", k))
		}
	}
	d.t.Logf("%s\n%s", d.cli("status"), d.cli("parked"))
}

// TestSQLRows: whatever changes rows, the registers are what the table has.
func TestSQLRows(t *testing.T) {
	d := newDataPlant(t, rowSchema+`INSERT INTO sensors VALUES ('berlin', 'old-1', 1), ('berlin', 'old-2', 2.50);
		CREATE TRIGGER note AFTER INSERT OR UPDATE ON sensors FOR EACH ROW WHEN (NEW.site = 'traced') EXECUTE FUNCTION note();`, rowMapping, "")
	d.start()
	d.stands(1)
	d.equal()
	for _, step := range []struct{ name, sql string }{
		{"insert", `INSERT INTO sensors VALUES ('berlin', 'a', 1, NULL), ('berlin', 'b', 2, 'C')`},
		{"update", `UPDATE sensors SET value = value * 1.5 WHERE site = 'berlin'`},
		{"null", `UPDATE sensors SET value = NULL WHERE name = 'a'`},
		{"a trigger writes", `INSERT INTO sensors VALUES ('traced', 'x', 7)`},
		{"a function writes", `SELECT bump('b')`},
		{"do", `DO $$ BEGIN FOR i IN 1..20 LOOP INSERT INTO sensors VALUES ('do', 'n' || i, i); END LOOP; END $$`},
		{"copy", "COPY sensors (site, name, value) FROM stdin;\ncopy\tc1\t1\ncopy\tc2\t2\n\\.\n"},
		{"upsert", `INSERT INTO sensors VALUES ('copy', 'c1', 11), ('copy', 'c3', 3) ON CONFLICT (site, name) DO UPDATE SET value = excluded.value`},
		{"key change", `UPDATE sensors SET name = 'renamed' WHERE name = 'c2'`},
		{"delete", `DELETE FROM sensors WHERE name = 'n7'`},
		{"rollback", `BEGIN; INSERT INTO sensors VALUES ('never', 'r', 1); ROLLBACK`},
		{"savepoint", `BEGIN; INSERT INTO sensors VALUES ('save', 'kept', 1); SAVEPOINT s; INSERT INTO sensors VALUES ('never', 's', 1);
			UPDATE sensors SET value = 99 WHERE name = 'kept'; ROLLBACK TO s; COMMIT`},
		{"two-phase", `BEGIN; INSERT INTO sensors VALUES ('two', 'p', 1); PREPARE TRANSACTION 'x'; COMMIT PREPARED 'x';
			BEGIN; INSERT INTO sensors VALUES ('never', 't', 1); PREPARE TRANSACTION 'y'; ROLLBACK PREPARED 'y'`},
		{"prepared", `PREPARE p AS INSERT INTO sensors VALUES ('prep', $1, $2); EXECUTE p('one', 1); EXECUTE p('two', 2)`},
		{"odd names", `INSERT INTO sensors VALUES ('a/b', 'c d&e=%2F+?', 1), ('ü', '日本', 2)`},
		{"truncate", `BEGIN; INSERT INTO sensors VALUES ('gone', 'g', 1); TRUNCATE sensors; INSERT INTO sensors VALUES ('after', 'g', 2); COMMIT`},
	} {
		d.pg.through(d.port, step.sql)
		if step.name == "odd names" {
			eventually(t, "odd names", func() bool {
				return d.read("site/a%2Fb/c d&e=%252F+?") != "" && d.read("site/ü/日本") == `{"value":2}`
			})
			d.pg.sql(`DELETE FROM sensors WHERE site = 'a/b'`)
		}
		d.equal()
		if t.Failed() {
			t.Fatalf("after %s", step.name)
		}
	}
	eventually(t, "what the trigger made", func() bool { return d.registers("audit/")["audit/1"] == `{"what":"INSERT x"}` })
	for register := range d.registers("") {
		if strings.HasPrefix(register, "site/never") {
			t.Errorf("%s was rolled back", register)
		}
	}
	if n := len(d.history("site/never/r")) + len(d.history("site/never/s")) + len(d.history("site/never/t")); n != 0 {
		t.Errorf("what was rolled back has %d history entries", n)
	}
	d.wantHistory("site/do/n3", 2) // made, and truncated
	// Who did it, and by which statement.
	d.pg.through(d.port, `INSERT INTO sensors VALUES ('who', 'w', 1)`)
	d.becomes("site/who/w", `{"value":1}`)
	if by := d.history("site/who/w")[0].Cause; by.Principal != "sql/erp:postgres" || by.Verified || by.Peer == "" || by.Protocol != "sql" {
		t.Errorf("who: got %+v", by)
	}
}

// TestSQLBothWays: a write on any side is one history entry, and comes back to nobody.
func TestSQLBothWays(t *testing.T) {
	d := newDataPlant(t, rowSchema+`CREATE TABLE odd (id int PRIMARY KEY, c char(5), n numeric(6,1), at timestamptz DEFAULT '2026-01-01', b bytea, doc jsonb, list int[], up text, f real, flag bool);
		CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.up := upper(NEW.up); RETURN NEW; END $$;
		CREATE TRIGGER up BEFORE INSERT OR UPDATE ON odd FOR EACH ROW EXECUTE FUNCTION up();`, rowMapping+`
register "odd/{id}" {
  fields = { c = string, n = number, at = time, b = bytes, doc = any, list = list(number), up = string, f = number, flag = bool }
  bind "http" "/odd/{id}" {}
  bind "sql" "odd" {
    key = { id = payload.id }
  }
}
`, `capture = "sync"`)
	d.start()
	d.stands(1)
	box := watchTopic(t, d.mqttAddr(), "sensors/#")
	put := func(path, body string) {
		t.Helper()
		if status, _, text := request(t, d.client, "PUT", d.httpURL()+path, body); status >= 300 {
			t.Fatalf("PUT %s: %d %s", path, status, text)
		}
	}
	row := func(sql, want string) {
		t.Helper()
		got := ""
		if !within(patience, func() bool { got = d.pg.sql(sql); return got == want }) {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	put("/v1/berlin/oven-1", `{"value":21.5}`)
	row(`SELECT value, unit, private FROM sensors WHERE name = 'oven-1'`, "21.5||keep")
	// capture = "sync": the reader who comes after the writer sees it.
	d.pg.through(d.port, `UPDATE sensors SET value = 30, private = 'mine' WHERE name = 'oven-1'`)
	if got := d.read("site/berlin/oven-1"); got != `{"value":30}` {
		t.Errorf("read your writes: got %s", got)
	}
	box.until(t, "the update", func(m message) bool { return m.topic == "sensors/berlin/oven-1" && m.payload == `{"value":30}` })
	d.pg.sql(`UPDATE sensors SET value = 31 WHERE name = 'oven-1'`) // straight behind the gateway
	d.becomes("site/berlin/oven-1", `{"value":31}`)
	must(t, peer(t, "mosquitto_pub", "mosquitto"), "-h", "127.0.0.1", "-p", fmt.Sprint(d.mqtt), "-q", "1", "-t", "sensors/berlin/oven-1", "-m", `{"unit":"C"}`)
	row(`SELECT value, unit, private FROM sensors WHERE name = 'oven-1'`, "31|C|mine")
	request(t, d.client, "DELETE", d.httpURL()+"/v1/berlin/oven-1", "")
	row(`SELECT count(*) FROM sensors WHERE name = 'oven-1'`, "0")

	put("/odd/1", `{"c":"ab","n":1.25,"b":"AQL/","doc":{"a":[1,{"b":null}],"n":1.50},"list":[3,1,2],"up":"low","f":0.1,"flag":true}`)
	row(`SELECT c, n, at, b, doc, list, up, f, flag FROM odd`, `ab   |1.3|2026-01-01 00:00:00+00|\x0102ff|{"a": [1, {"b": null}], "n": 1.5}|{3,1,2}|LOW|0.1|t`)
	put("/odd/1", `{"c":"abc","n":2.25,"b":"AQL/","doc":5,"list":[],"up":"lower","f":0.25,"flag":false,"at":"2026-05-01T12:00:00.123456+02:00"}`)
	row(`SELECT c, n, at, b, doc, list, up, f, flag FROM odd`, `abc  |2.3|2026-05-01 10:00:00.123456+00|\x0102ff|5|{}|LOWER|0.25|f`)
	// What the server makes of it is no news, and is not fought over.
	fence := func() {
		t.Helper()
		for i := range 2 {
			name := fmt.Sprintf("fence-%d", i)
			d.pg.sql(`INSERT INTO sensors VALUES ('fence', '` + name + `', 1)`)
			d.becomes("site/fence/"+name, `{"value":1}`)
			put("/v1/fence/"+name, `{"value":2}`)
			row(`SELECT value FROM sensors WHERE name = '`+name+`'`, "2")
			d.pg.sql(`DELETE FROM sensors WHERE site = 'fence'`)
			d.becomes("site/fence/"+name, "")
		}
	}
	fence()
	d.wantHistory("site/berlin/oven-1", 5)
	d.wantHistory("odd/1", 2)
	version := d.pg.sql(`SELECT xmin FROM odd`)
	// Somebody else's news comes through, beside what the server made.
	d.pg.sql(`UPDATE odd SET flag = true`)
	eventually(t, "the flag", func() bool { return strings.Contains(d.read("odd/1"), `"flag":true`) })
	if got := d.read("odd/1"); !strings.Contains(got, `"up":"lower"`) || !strings.Contains(got, `"n":2.25`) {
		t.Errorf("after somebody else's write: %s", got)
	}
	fence()
	d.wantHistory("odd/1", 3)
	if now := d.pg.sql(`SELECT xmin FROM odd`); now == version {
		t.Error("the row was not changed")
	}
	// The same after a restart.
	version = d.pg.sql(`SELECT xmin FROM odd`)
	d.stop(t)
	d.start()
	d.stands(1)
	fence()
	d.wantHistory("odd/1", 3)
	if now := d.pg.sql(`SELECT xmin FROM odd`); now != version {
		t.Error("the row was written again after a restart")
	}
}

// TestSQLReferences: a child waits for its parent; what the server refuses is parked in its words, and the rest goes on.
func TestSQLReferences(t *testing.T) {
	d := newDataPlant(t, `CREATE TABLE parent (id text PRIMARY KEY, n int CHECK (n < 100));
		CREATE TABLE child (id text PRIMARY KEY, parent text REFERENCES parent);`, `
register "parent/{id}" {
  fields = { n = number }
  bind "http" "/parent/{id}" {}
  bind "sql" "parent" {
    key = { id = payload.id }
  }
}
register "child/{id}" {
  fields = { parent = string }
  bind "http" "/child/{id}" {}
  bind "sql" "child" {
    key = { id = payload.id }
  }
}
`, "")
	d.start()
	d.stands(1)
	put := func(path, body string) { request(t, d.client, "PUT", d.httpURL()+path, body) }
	put("/child/c1", `{"parent":"p1"}`)
	put("/parent/bad", `{"n":200}`)
	eventually(t, "the refusal is shown", func() bool { return strings.Contains(d.cli("parked"), "parent_n_check") })
	put("/parent/p1", `{"n":1}`)
	eventually(t, "the child has come", func() bool { return d.pg.sql("SELECT parent FROM child WHERE id = 'c1'") == "p1" })
	if out := d.cli("parked"); !strings.Contains(out, "23514") || strings.Contains(out, "child") {
		t.Errorf("parked: %s", out)
	}
	// Many at once, children first.
	for i := range 20 {
		put(fmt.Sprintf("/child/m%d", i), fmt.Sprintf(`{"parent":"q%d"}`, i))
		put(fmt.Sprintf("/parent/q%d", i), `{"n":2}`)
	}
	eventually(t, "all have come", func() bool { return d.pg.sql("SELECT count(*) FROM child") == "21" })
}

// TestSQLKill: the gateway killed again and again while rows change on both sides; then registers are rows.
func TestSQLKill(t *testing.T) {
	d := newDataPlant(t, rowSchema, rowMapping, "")
	killUnderLoad(t, d.spookgw, d.stands, func(ctx context.Context, i int) *exec.Cmd {
		return exec.CommandContext(ctx, d.pg.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(d.pg.port), "-U", "postgres", "-d", "plant", "-qc",
			fmt.Sprintf(`INSERT INTO sensors SELECT 'load', 'r' || (%d + i) %% 200, %d FROM generate_series(1, 20) i ON CONFLICT (site, name) DO UPDATE SET value = excluded.value;
			DELETE FROM sensors WHERE site = 'load' AND name = 'r' || %d;`, i, i, i%200))
	})
	d.equal()
	for _, register := range []string{"site/load/r7", "site/load/r150"} {
		onlyGrows(t, register, d.history(register))
	}
	if n := d.pg.sql("SELECT count(*) FROM pg_replication_slots"); n != "1" {
		t.Errorf("%s slots, want 1", n)
	}
}

// TestSQLServerFails: the server restarted, killed, and its slot dropped.
func TestSQLServerFails(t *testing.T) {
	d := newDataPlant(t, rowSchema, rowMapping, "")
	d.start()
	d.stands(1)
	d.pg.sql(`INSERT INTO sensors SELECT 's', 'n' || i, i FROM generate_series(1, 50) i`)
	d.equal()
	ups := 1
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"restarted", func() { d.pg.halt(); d.pg.up() }},
		{"killed", func() { d.pg.kill(); d.pg.up() }},
		{"slot dropped", func() {
			d.spookgw.stop(t)
			d.pg.sql(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
			d.pg.sql(`DELETE FROM sensors WHERE name IN ('n3', 'n4'); UPDATE sensors SET value = 1000 WHERE name = 'n5'; INSERT INTO sensors VALUES ('s', 'new', 1)`)
			d.start()
			ups = 0
		}},
	} {
		step.do()
		request(t, d.client, "PUT", d.httpURL()+"/v1/s/web", `{"value":`+fmt.Sprint(ups)+`}`)
		ups++
		d.stands(ups)
		d.pg.through(d.port, `UPDATE sensors SET value = value + 1 WHERE name = 'n1'`)
		d.pg.sql(`DELETE FROM sensors WHERE name = 'n' || ` + fmt.Sprint(40+ups))
		eventually(t, "the row of the register", func() bool { return d.pg.sql(`SELECT count(*) FROM sensors WHERE name = 'web'`) == "1" })
		d.equal()
		if t.Failed() {
			t.Fatalf("after: %s", step.name)
		}
	}
}

// TestSQLReload: a table that is mapped while the gateway runs is copied and followed, and one that is not mapped any more is let go.
func TestSQLReload(t *testing.T) {
	d := newDataPlant(t, rowSchema+`INSERT INTO audit (what) VALUES ('old')`, strings.SplitAfter(rowMapping, "\n}\n")[0], "")
	d.start()
	d.stands(1)
	d.pg.sql(`INSERT INTO sensors VALUES ('a', 'b', 1)`)
	d.becomes("site/a/b", `{"value":1}`)
	d.mapping(rowMapping)
	d.cli("reload")
	d.becomes("audit/1", `{"what":"old"}`)
	d.stands(2)
	d.pg.sql(`INSERT INTO audit (what) VALUES ('new'); UPDATE sensors SET value = 2`)
	d.becomes("audit/2", `{"what":"new"}`)
	d.becomes("site/a/b", `{"value":2}`)
	published := func() string {
		return d.pg.sql(`SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables`)
	}
	if got := published(); got != "audit sensors" {
		t.Errorf("published: %s", got)
	}
	d.mapping(strings.SplitAfter(rowMapping, "\n}\n")[0])
	d.cli("reload")
	eventually(t, "one table is published", func() bool { return published() == "sensors" })
	d.pg.sql(`UPDATE sensors SET value = 3`)
	d.becomes("site/a/b", `{"value":3}`)
	d.wantHistory("site/a/b", 3)
}
