package virtual

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// The first packet of a connection (protocol, section 55.7, StartupMessage and what stands in its place).
const (
	cancelCode     = 80877102
	sslCode        = 80877103
	gssCode        = 80877104
	mostStartup    = 10_000
	newestMinor    = 2
	writePatience  = 60 * time.Second
	tlsFirstByte   = 0x16
	alpnPostgreSQL = "postgresql"
)

// errStartup ends a connection without a word: its peer is none of ours.
var errStartup = errors.New("no startup packet")

// buffered is a connection of which some bytes were read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// serve is one connection, from its first byte to its end.
func (s *server) serve(ctx context.Context, p *relay.Peer) {
	defer p.Close()
	se := &session{server: s, conn: p, peer: p, began: time.Now()}
	if s.Config.TLS != nil {
		conn := &buffered{p, bufio.NewReaderSize(p, 512)}
		se.conn = conn
		if first, err := conn.r.Peek(1); err != nil {
			return
		} else if first[0] == tlsFirstByte && !se.secure(ctx) {
			return
		}
	}
	for tries := 0; ; tries++ {
		code, body, err := readStartup(se.conn)
		if err != nil || tries > 3 {
			s.link.Count("garbage", 1)
			return
		}
		switch {
		case code == cancelCode:
			if len(body) >= 8 {
				s.cancel(binary.BigEndian.Uint32(body), body[4:])
			}
			return
		case code == sslCode:
			if s.Config.TLS == nil || se.tls {
				if _, err := se.conn.Write([]byte{'N'}); err != nil {
					return
				}
				continue
			}
			if se.conn.(*buffered).r.Buffered() > 0 {
				return // bytes sent before the answer would be taken for encrypted ones
			}
			se.conn = p
			if _, err := se.conn.Write([]byte{'S'}); err != nil || !se.secure(ctx) {
				return
			}
		case code == gssCode:
			if _, err := se.conn.Write([]byte{'N'}); err != nil {
				return
			}
		case code>>16 == 3:
			se.minor = int(code & 0xffff)
			se.startup(ctx, body)
			return
		default:
			s.link.Count("garbage", 1)
			_, _ = se.conn.Write(fatal("0A000", "unsupported frontend protocol: this server speaks 3.0 to 3.2"))
			return
		}
	}
}

func (se *session) secure(ctx context.Context) bool {
	cfg := se.server.Config.TLS
	if !slices.Contains(cfg.NextProtos, alpnPostgreSQL) {
		cfg = cfg.Clone()
		cfg.NextProtos = append(cfg.NextProtos, alpnPostgreSQL)
	}
	tc := tls.Server(se.conn, cfg)
	ctx, cancel := context.WithTimeout(ctx, se.server.Config.Limits.Handshake)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		se.server.link.Count("tls_failed", 1)
		return false
	}
	se.conn, se.tls = tc, true
	return true
}

func readStartup(r io.Reader) (code uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 8 || n > mostStartup {
		return 0, nil, errStartup
	}
	body = make([]byte, n-8)
	_, err = io.ReadFull(r, body)
	return binary.BigEndian.Uint32(head[4:]), body, err
}

// startup is everything between the startup message and the end of the session.
func (se *session) startup(ctx context.Context, body []byte) {
	s := se.server
	se.inbox = inbox{relay.NewWindow(se.conn), s.Config.Limits.Frame}
	defer se.inbox.window.Close()
	params, ok := startupParameters(body)
	if !ok {
		s.link.Count("garbage", 1)
		se.fatal("08P01", "invalid startup packet layout")
		return
	}
	se.user, se.database = params["user"], params["database"]
	if se.database == "" {
		se.database = se.user
	}
	switch {
	case se.user == "":
		se.fatal("28000", "no PostgreSQL user name specified in startup packet")
		return
	case params["replication"] != "" && params["replication"] != "false" && params["replication"] != "off" && params["replication"] != "0":
		se.fatal(pgsql.FeatureNotSupported, "replication connections are not supported here")
		return
	case s.Config.TLS != nil && !se.tls:
		se.fatal("28000", "this server takes encrypted connections only: use sslmode=require")
		return
	}
	var unknown []string
	for name := range params {
		if strings.HasPrefix(name, "_pq_.") {
			unknown = append(unknown, name)
		}
	}
	if se.minor > newestMinor || len(unknown) > 0 {
		slices.Sort(unknown)
		minor := min(se.minor, newestMinor)
		if minor == 1 {
			minor = 0 // there never was a 3.1
		}
		se.minor = minor
		se.send(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: 3<<16 | uint32(minor), UnrecognizedOptions: unknown})
	}
	if !se.authenticate() {
		return
	}
	if s.Database != "" && se.database != s.Database {
		se.fatal("3D000", "database \""+se.database+"\" does not exist")
		return
	}
	if cfg := &s.Config; !se.who.Verified && cfg.Anonymous < wrappers.ReadAccess {
		se.fatal("28000", "log on first")
		return
	}
	se.settings = newSettings(se.user)
	for name, value := range params {
		switch name {
		case "user", "database", "replication":
		case "options":
			if err := se.options(value); err != nil {
				se.fatalError(err)
				return
			}
		default:
			if strings.HasPrefix(name, "_pq_.") {
				continue
			}
			if err := se.settings.set(name, value); err != nil {
				se.fatalError(err)
				return
			}
		}
	}
	se.peer.Welcome()
	s.enter(se)
	defer s.leave(se)
	defer se.end()
	se.send(&pgproto3.AuthenticationOk{})
	for name, title := range reported {
		v, _ := se.settings.show(name)
		se.send(&pgproto3.ParameterStatus{Name: title, Value: v})
	}
	se.send(&pgproto3.BackendKeyData{ProcessID: se.pid, SecretKey: se.secret})
	se.loop(ctx)
}

func startupParameters(body []byte) (map[string]string, bool) {
	params := map[string]string{}
	parts := strings.Split(string(body), "\x00")
	// name, value, …, "", and what stands behind the last zero
	n := len(parts)
	if n < 2 || parts[n-1] != "" || parts[n-2] != "" || n%2 != 0 {
		return nil, false
	}
	for i := 0; i+1 < n-2; i += 2 {
		if parts[i] == "" {
			return nil, false
		}
		params[parts[i]] = parts[i+1]
	}
	return params, true
}

// options reads -c name=value, as psql's PGOPTIONS has it.
func (se *session) options(text string) error {
	fields := strings.Fields(text)
	for i := 0; i < len(fields); i++ {
		f := fields[i]
		switch {
		case f == "-c" && i+1 < len(fields):
			i++
			f = fields[i]
		case strings.HasPrefix(f, "-c"):
			f = f[2:]
		case strings.HasPrefix(f, "--"):
			f = strings.Replace(f[2:], "-", "_", 1)
		default:
			return pgsql.Errorf(pgsql.SyntaxError, "invalid command-line argument for server process: %s", f)
		}
		name, value, _ := strings.Cut(f, "=")
		if err := se.settings.set(name, strings.ReplaceAll(value, `\ `, " ")); err != nil {
			return err
		}
	}
	return nil
}

// authenticate finds out who it is: by SCRAM-SHA-256 for the gateway's users. Others are let in as far as the listener
// lets in anonymous peers.
func (se *session) authenticate() bool {
	cfg := &se.server.Config
	se.who.Peer = se.peer.RemoteAddr().String()
	if cfg.Logon == nil || !cfg.Logon.Any() {
		return true
	}
	keys, principal, known := cfg.Logon.Scram(se.user)
	if !known && cfg.Anonymous >= wrappers.ReadAccess {
		return true
	}
	refuse := func() bool {
		se.server.link.Count("refused_auth", 1)
		se.fatal("28P01", "password authentication failed for user \""+se.user+"\"")
		return false
	}
	se.send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{wrappers.ScramName}})
	if se.flush() != nil {
		return false
	}
	var x wrappers.Scram
	var initial pgproto3.SASLInitialResponse
	if err := se.inbox.sasl(&initial); err != nil {
		return false
	}
	if initial.AuthMechanism != wrappers.ScramName {
		se.fatal("08P01", "client selected an invalid SASL authentication mechanism")
		return false
	}
	if err := x.First(initial.Data); err != nil {
		se.fatal("08P01", err.Error())
		return false
	}
	se.send(&pgproto3.AuthenticationSASLContinue{Data: x.Challenge(keys)})
	if se.flush() != nil {
		return false
	}
	var response pgproto3.SASLResponse
	if err := se.inbox.sasl(&response); err != nil {
		return false
	}
	answer, right, err := x.Final(response.Data)
	if err != nil {
		se.fatal("08P01", err.Error())
		return false
	}
	if !right || !known {
		return refuse()
	}
	se.send(&pgproto3.AuthenticationSASLFinal{Data: answer})
	se.who.Principal, se.who.Verified = principal, true
	return true
}
