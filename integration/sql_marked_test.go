package integration

import "testing"

// TestSQLMarked: a row that says itself that it is gone stays, and its register goes; what a row needs is written when it is made.
func TestSQLMarked(t *testing.T) {
	d := newDataPlant(t, `CREATE TABLE people (uid text PRIMARY KEY, full_name text, left_at timestamptz, made_by text NOT NULL, salary int DEFAULT 7);
		INSERT INTO people VALUES ('ann', 'Ann', NULL, 'hand'), ('old', 'Old', '2020-01-01', 'hand');`, `
register "person/{uid}" {
  fields = { name = string }
  bind "http" "/people/{uid}" {}
  bind "sql" "people" {
    key    = { uid = payload.uid }
    map    = { name = payload.full_name }
    delete = { left_at = now }
    create = { made_by = "gateway" }
  }
}
`, "")
	d.start()
	d.stands(1)
	row := func(uid, want string) {
		t.Helper()
		got, sql := "", `SELECT full_name, left_at IS NOT NULL, made_by, salary FROM people WHERE uid = '`+uid+`'`
		if !within(patience, func() bool { got = d.pg.sql(sql); return got == want }) {
			t.Errorf("%s: the row is %q, want %q\n%s", uid, got, want, d.cli("parked"))
		}
	}
	d.becomes("person/ann", `{"name":"Ann"}`)
	d.becomes("person/old", "")
	request(t, d.client, "PUT", d.httpURL()+"/people/bo", `{"name":"Bo"}`)
	row("bo", "Bo|f|gateway|7")

	// Gone at the gateway: the row is marked, with all else that it has.
	request(t, d.client, "DELETE", d.httpURL()+"/people/bo", "")
	row("bo", "Bo|t|gateway|7")
	// Marked at the database: the register goes. Unmarked, it is back.
	d.pg.sql(`UPDATE people SET left_at = now() WHERE uid = 'ann'`)
	d.becomes("person/ann", "")
	row("ann", "Ann|t|hand|7")
	d.pg.sql(`UPDATE people SET left_at = NULL WHERE uid IN ('ann', 'old')`)
	d.becomes("person/ann", `{"name":"Ann"}`)
	d.becomes("person/old", `{"name":"Old"}`)
	// Back at the gateway: the mark goes.
	request(t, d.client, "PUT", d.httpURL()+"/people/bo", `{"name":"Bob"}`)
	row("bo", "Bob|f|gateway|7")
	d.becomes("person/bo", `{"name":"Bob"}`)
}
