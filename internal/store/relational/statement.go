package relational

import (
	"fmt"
	"strconv"
	"strings"
)

// placeholders returns "$first, …" for n parameters.
func placeholders(first, n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(first+i)
	}
	return strings.Join(list, ", ")
}

// assignments returns "column = $first, …" for columns.
func assignments(first int, columns []string) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = fmt.Sprintf("%s = $%d", c, first+i)
	}
	return strings.Join(list, ", ")
}

// selection builds the end of a SELECT: conditions, order and limit.
type selection struct {
	conditions []string
	args       []any
}

// where adds a condition, in which every "?" stands for arg.
func (s *selection) where(condition string, arg any) {
	s.conditions = append(s.conditions, strings.ReplaceAll(condition, "?", s.param(arg)))
}

func (s *selection) param(arg any) string {
	s.args = append(s.args, arg)
	return "$" + strconv.Itoa(len(s.args))
}

// end returns " WHERE … ORDER BY order LIMIT limit"; a limit of 0 is none.
func (s *selection) end(order string, limit int) string {
	var b strings.Builder
	if len(s.conditions) > 0 {
		b.WriteString(" WHERE " + strings.Join(s.conditions, " AND "))
	}
	b.WriteString(" ORDER BY " + order)
	if limit > 0 {
		b.WriteString(" LIMIT " + s.param(limit))
	}
	return b.String()
}
