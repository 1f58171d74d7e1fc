package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// endFile says where the log stood at a clean stop. Damage at the end of pebble's list of files
// looks like a list that a crash cut off, and shows an older state; against this it shows.
const endFile = "END"

// An End is the place where a log ended.
type End struct{ Log, Ordinal uint64 }

// LastEnd gives the note of the last clean stop; ok is false after a crash, and if the note itself
// is damaged.
func (s *Store) LastEnd() (e End, ok bool) {
	f, err := s.disk.Open(s.disk.PathJoin(s.dir, endFile))
	if err != nil {
		return e, false
	}
	raw, err := io.ReadAll(io.LimitReader(f, 64))
	if errors.Join(err, f.Close()) != nil || len(raw) != 20 || binary.BigEndian.Uint32(raw[16:]) != crc32.ChecksumIEEE(raw[:16]) {
		return e, false
	}
	return End{binary.BigEndian.Uint64(raw), binary.BigEndian.Uint64(raw[8:])}, true
}

// ForgetEnd takes the note away, before anything is written behind it.
func (s *Store) ForgetEnd() error {
	if err := s.disk.Remove(s.disk.PathJoin(s.dir, endFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// noteEnd writes the note. It is worth no failed stop: without it the next start only knows less.
func (s *Store) noteEnd(e End) {
	raw := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, e.Log), e.Ordinal)
	raw = binary.BigEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw))
	name := s.disk.PathJoin(s.dir, endFile)
	f, err := s.disk.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	_, err = f.Write(raw)
	if errors.Join(err, f.Sync(), f.Close()) != nil || s.disk.Rename(name+".new", name) != nil {
		_ = s.disk.Remove(name + ".new") // it says nothing
	}
}
