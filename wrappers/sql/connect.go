package sql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// settings make a session write its values in the one form that this package reads.
var settings = map[string]string{
	"client_encoding":    "UTF8",
	"DateStyle":          "ISO, YMD",
	"IntervalStyle":      "postgres",
	"TimeZone":           "UTC",
	"bytea_output":       "hex",
	"extra_float_digits": "1",
	"xmloption":          "content",
}

// connect opens a session of the gateway's own.
func (w *wrapper) connect(ctx context.Context, purpose string, more map[string]string) (*pgconn.PgConn, error) {
	up := &w.cfg.Upstreams[0]
	// Everything is said here: what the environment has for libpq is none of ours.
	cfg, err := pgconn.ParseConfig("host=localhost port=5432 user=x dbname=x sslmode=disable connect_timeout=0 passfile= target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	cfg.User, cfg.Database, cfg.Password, cfg.Fallbacks = up.User, w.database, "", nil
	if up.Password != nil {
		cfg.Password = up.Password()
	}
	cfg.RuntimeParams = map[string]string{"application_name": "spookgw " + w.cfg.Name + " " + purpose}
	for k, v := range settings {
		cfg.RuntimeParams[k] = v
	}
	for k, v := range more {
		cfg.RuntimeParams[k] = v
	}
	cfg.TLSConfig = w.upstreamTLS()
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil } // DialFunc knows better
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}}
		return d.DialContext(ctx, up.Network(), up.Addr)
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	return pgconn.ConnectConfig(ctx, cfg)
}

// connectWithin bounds opening a session.
const connectWithin = 15 * time.Second

// closeConn says good-bye, and does not wait long for it to be heard.
func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// A field is a column of an answer: its text, or NULL.
type field struct {
	text string
	null bool
}

// query runs one statement and gives its rows.
func query(ctx context.Context, c *pgconn.PgConn, sql string) ([][]field, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]field
	for _, r := range results {
		if r.Err != nil {
			return nil, r.Err
		}
		for _, values := range r.Rows {
			row := make([]field, len(values))
			for i, v := range values {
				row[i] = field{string(v), v == nil}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// one runs a statement that gives one row.
func one(ctx context.Context, c *pgconn.PgConn, sql string) ([]field, error) {
	rows, err := query(ctx, c, sql)
	if err == nil && len(rows) != 1 {
		err = fmt.Errorf("%d rows where one was asked for", len(rows))
	}
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// sqlState gives the server's code for an error, "" if it is none of the server's.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}
