package sql

import (
	"fmt"

	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

// A row is what Payload.Raw holds: column → value. A value is nil (NULL), bool, int64, a number (of any size), string,
// []byte, []any or map[string]any. Times are texts by RFC 3339. A column that is not there is not spoken of.
type row map[string]any

// A number is an exact decimal number, as text: "-12.50", "1e300".
type number = sqlrow.Number

// rowType is the media type of a row.
const rowType = sqlrow.Type

// encode writes a row as a payload.
func (r row) encode() ([]byte, error) { return sqlrow.Encode(r) }

// decodeRow reads a payload. No bytes at all are a row without columns.
func decodeRow(raw []byte) (row, error) {
	r, err := sqlrow.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("a row: %w", err)
	}
	return r, nil
}
