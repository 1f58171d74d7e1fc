package gateway

import (
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestUpsert: an upsert that says all it puts is written without a look at what is there. What others see of it, and later
// statements of its own transaction, is the same as if it had looked.
func TestUpsert(t *testing.T) {
	const put = "INSERT INTO sensors (site, sensor, value) VALUES ($1, $2, $3) ON CONFLICT (site, sensor) DO UPDATE SET value = excluded.value"
	for _, c := range []struct {
		name  string
		there bool // a row with a unit and a time
		batch func(*pgx.Batch)
		want  string // site, value, unit; "" for none
		fails string // SQLSTATE
		n     int64  // rows of the first statement
	}{
		{"a new row", false, func(b *pgx.Batch) { b.Queue(put, "s", "a", 1) }, "1 ", "", 1},
		{"over a row", true, func(b *pgx.Batch) { b.Queue(put, "s", "a", 1) }, "1 C", "", 1},
		{"nothing but NULL over a row", true, func(b *pgx.Batch) { b.Queue(put, "s", "a", nil) }, " C", "", 1},
		{"nothing but NULL over nothing", false, func(b *pgx.Batch) { b.Queue(put, "s", "a", nil) }, "", "23514", 0},
		{"twice in a transaction", true, func(b *pgx.Batch) { b.Queue(put, "s", "a", 1); b.Queue(put, "s", "a", 2) }, "2 C", "", 1},
		{"twice in a statement", true, func(b *pgx.Batch) {
			b.Queue("INSERT INTO sensors (site, sensor, value) VALUES ('s', 'a', 1), ('s', 'a', 2) ON CONFLICT (site, sensor) DO UPDATE SET value = excluded.value")
		}, "7 C", "21000", 0},
		{"and updated", true, func(b *pgx.Batch) { b.Queue(put, "s", "a", 1); b.Queue("UPDATE sensors SET value = value + 1") }, "2 C", "", 1},
		{"and updated where it is new", false, func(b *pgx.Batch) { b.Queue(put, "s", "a", 1); b.Queue("UPDATE sensors SET unit = 'K'") }, "1 K", "", 1},
		{"and deleted", true, func(b *pgx.Batch) { b.Queue(put, "s", "a", 1); b.Queue("DELETE FROM sensors WHERE sensor = 'a'") }, "", "", 1},
		{"and inserted", true, func(b *pgx.Batch) {
			b.Queue(put, "s", "a", 1)
			b.Queue("INSERT INTO sensors (site, sensor, unit) VALUES ('s', 'a', 'K')")
		}, "7 C", "23505", 1},
		{"a row that is given more than is set", true, func(b *pgx.Batch) {
			b.Queue("INSERT INTO sensors (site, sensor, value, unit) VALUES ($1, $2, $3, 'K') ON CONFLICT (site, sensor) DO UPDATE SET value = excluded.value", "s", "a", 1)
		}, "1 C", "", 1},
		{"a row that is set more than is given", true, func(b *pgx.Batch) {
			b.Queue("INSERT INTO sensors (site, sensor, value) VALUES ($1, $2, $3) ON CONFLICT (site, sensor) DO UPDATE SET value = excluded.value, unit = excluded.unit", "s", "a", 1)
		}, "1 ", "", 1},
		{"columns crossed", true, func(b *pgx.Batch) {
			b.Queue("INSERT INTO sensors (site, sensor, value, unit) VALUES ($1, $2, $3, '5') ON CONFLICT (site, sensor) DO UPDATE SET unit = excluded.sensor, value = excluded.value", "s", "a", 1)
		}, "1 a", "", 1},
		{"a condition", true, func(b *pgx.Batch) { b.Queue(put+" WHERE sensors.value < 5", "s", "a", 1) }, "7 C", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, addr := sqlWorld(t, nil)
			db, other := pgxTo(t, addr), pgxTo(t, addr)
			ctx := t.Context()
			if c.there {
				if _, err := db.Exec(ctx, "INSERT INTO sensors (site, sensor, value, unit, at) VALUES ('s', 'a', 7, 'C', now())"); err != nil {
					t.Fatal(err)
				}
			}
			var b pgx.Batch
			c.batch(&b)
			results := db.SendBatch(ctx, &b)
			var n int64
			var failed error
			for i := range b.Len() {
				tag, err := results.Exec()
				if i == 0 {
					n = tag.RowsAffected()
				}
				if err != nil {
					failed = err
					break
				}
			}
			if err := results.Close(); failed == nil {
				failed = err
			}
			if c.fails == "" && failed != nil || c.fails != "" && !isState(failed, c.fails) {
				t.Errorf("got %v, want %q", failed, c.fails)
			}
			if n != c.n {
				t.Errorf("%d rows, want %d", n, c.n)
			}
			var got string
			err := other.QueryRow(ctx, "SELECT coalesce(value::text, '') || ' ' || coalesce(unit, '') FROM sensors WHERE site = 's' AND sensor = 'a'").Scan(&got)
			if c.want == "" && err == nil || c.want != "" && (err != nil || got != c.want) {
				t.Errorf("the row is %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

// TestUpsertTogether: upserts of one row by many clients all succeed, and the last one stands.
func TestUpsertTogether(t *testing.T) {
	_, _, addr := sqlWorld(t, nil)
	const clients, each = 8, 25
	var wg sync.WaitGroup
	for k := range clients {
		c := pgxTo(t, addr)
		wg.Go(func() {
			for i := range each {
				if _, err := c.Exec(t.Context(), "INSERT INTO counts (name, n) VALUES ('a', $1) ON CONFLICT (name) DO UPDATE SET n = excluded.n", k*each+i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := pgxTo(t, addr).QueryRow(t.Context(), "SELECT n FROM counts WHERE name = 'a'").Scan(&n); err != nil || n%each != each-1 {
		t.Error(n, err, "want somebody's last")
	}
}
