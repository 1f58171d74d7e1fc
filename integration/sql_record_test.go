package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecordTables: what clients write into tables that no bind maps is recorded, whole, from the first statement on; the binds
// that are proposed from it map it, and load beside the mappings that are there.
func TestRecordTables(t *testing.T) {
	d := newDataPlant(t, rowSchema+`
CREATE TABLE orders (id serial PRIMARY KEY, customer text, amount numeric(9,2), due timestamptz, tags text[]);
CREATE TABLE lines (order_id int, pos int, article text, PRIMARY KEY (order_id, pos));
CREATE TABLE heap (x int);
`, rowMapping, "")
	d.start()
	d.stands(1)
	rec, file := startRecord(t, d.spookgw)
	d.pg.through(d.port, `INSERT INTO orders (customer, amount, due, tags) VALUES ('Foo', 12.50, '2026-01-02 03:04:05Z', '{a,b}'), ('Bar', 7, '2026-01-03 00:00:00Z', '{}');`)
	d.pg.through(d.port, `PREPARE p AS INSERT INTO lines VALUES ($1, $2, $3); EXECUTE p(1, 1, 'bolt'); EXECUTE p(1, 2, 'nut');`)
	d.pg.through(d.port, `UPDATE orders SET amount = amount * 2 WHERE id = 2;`)
	d.pg.through(d.port, `DELETE FROM lines WHERE pos = 2;`)
	d.pg.through(d.port, `INSERT INTO sensors VALUES ('berlin', 'oven', 20, 'C'); INSERT INTO heap VALUES (1);`)
	text := recorded(t, file, 8)
	rec.cmd.Process.Signal(os.Interrupt)
	rec.wait(t)
	for want, n := range map[string]int{
		`"address":"public.orders?id=`: 3, `"address":"public.lines?order_id=1&pos=2"`: 2, `"address":"public.heap"`: 1, `"address":"public.sensors?name=oven&site=berlin"`: 1,
		`"principal":"sql/erp:postgres"`: 8, `"kind":"passed"`: 7,
	} {
		if got := strings.Count(text, want); got != n {
			t.Errorf("%s stands there %d times, want %d:\n%s", want, got, n, text)
		}
	}
	out := must(t, d.program, "init", "--from-traffic", file, d.dir)
	proposal, err := os.ReadFile(filepath.Join(d.dir, "mappings.d", "traffic.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`register "order/{id}"`, `bind "sql" "public.orders"`, "amount = number", "due = time", "tags = list(string)", `bind "sql" "public.lines"`,
		`key = { order_id = payload.order_id, pos = payload.pos }`, "public.heap (once): nothing tells its rows apart",
	} {
		if !strings.Contains(string(proposal), want) {
			t.Errorf("the proposal has no %s:\n%s\n%s", want, out, proposal)
		}
	}
	if strings.Contains(string(proposal), `"public.sensors"`) {
		t.Errorf("what is mapped already is proposed:\n%s", proposal)
	}
	must(t, d.program, "reload", "--socket", d.socket)
	eventually(t, "the rows of a table that was proposed", func() bool { return len(d.registers("order/")) == 2 })
	if got := d.pg.sql("SELECT count(*) FROM pg_replication_slots"); got != "1" {
		t.Errorf("%s replication slots are left, want the feed's alone", got)
	}
}
