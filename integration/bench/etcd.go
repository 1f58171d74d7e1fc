package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
)

// etcd is a cluster of one, which syncs its log before it answers.
func (l *lab) etcd() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	peer, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := l.place("etcd", "etcd.yml", fmt.Sprintf(`name: bench
data-dir: data
listen-client-urls: http://%[1]s
advertise-client-urls: http://%[1]s
listen-peer-urls: http://%[2]s
initial-advertise-peer-urls: http://%[2]s
initial-cluster: bench=http://%[2]s
quota-backend-bytes: 8589934592
log-level: error
`, addr, peer))
	if err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "etcd", addr, dir, answers("http://"+addr+"/health"), "etcd", "--config-file", "etcd.yml"))
}

// dialEtcd gives writers that put the keys of one commit in one transaction. They share a
// connection, as those of etcd's own client do. gRPC is written here, since it is little on top of
// the HTTP/2 of net/http (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md), and its module is not.
func dialEtcd() func(addr string) (storeWriter, error) {
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: plain, DisableCompression: true}
	return func(addr string) (storeWriter, error) {
		return &etcdWriter{transport, "http://" + addr + "/etcdserverpb.KV/Txn", nil}, nil
	}
}

type etcdWriter struct {
	transport *http.Transport
	url       string
	out       []byte
}

func (w *etcdWriter) Close() error {
	w.transport.CloseIdleConnections()
	return nil
}

func (w *etcdWriter) Write(sets []keyValue) error {
	w.out = appendTxn(append(w.out[:0], 0, 0, 0, 0, 0), sets)
	binary.BigEndian.PutUint32(w.out[1:], uint32(len(w.out)-5))
	req, err := http.NewRequest(http.MethodPost, w.url, bytes.NewReader(w.out))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := w.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if status := resp.Trailer.Get("Grpc-Status"); status != "0" {
		return fmt.Errorf("etcd answered %s, gRPC status %q%q: %s", resp.Status, status, resp.Header.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message"))
	}
	return nil
}

// appendTxn appends an etcdserverpb.TxnRequest whose success (field 2) is a RequestOp for each
// set, of a PutRequest (field 2) with key (1) and value (2). It compares nothing, so it succeeds.
func appendTxn(dst []byte, sets []keyValue) []byte {
	for _, s := range sets {
		put := fieldLen(len(s.key)) + fieldLen(len(s.value))
		dst = appendField(dst, 2, fieldLen(put))
		dst = appendField(dst, 2, put)
		dst = append(appendField(dst, 1, len(s.key)), s.key...)
		dst = append(appendField(dst, 2, len(s.value)), s.value...)
	}
	return dst
}

// appendField begins a field with a length (protobuf wire type 2).
func appendField(dst []byte, number, size int) []byte {
	return binary.AppendUvarint(append(dst, byte(number<<3|2)), uint64(size))
}

func fieldLen(size int) int { return 1 + len(binary.AppendUvarint(nil, uint64(size))) + size }
