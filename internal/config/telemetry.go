package config

import (
	"slices"
	"strings"
)

// Tracing says whether spans are exported over OTLP/HTTP. Where to, with which
// headers and how many, the OpenTelemetry SDK reads from the standard variables of the
// process itself.
type Tracing struct {
	Enabled bool
}

// otelEndpoints are the variables that ask for an export of traces.
var otelEndpoints = []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}

// otelChoices are the variables of which this build supports some values only.
var otelChoices = map[string][]string{
	"OTEL_TRACES_EXPORTER":               {"otlp", "none"},
	"OTEL_METRICS_EXPORTER":              {"none", "prometheus"},
	"OTEL_LOGS_EXPORTER":                 {"none"},
	"OTEL_EXPORTER_OTLP_PROTOCOL":        {"http/protobuf"},
	"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": {"http/protobuf"},
}

func telemetryVariables() []variable {
	var list []variable
	for _, name := range []string{
		"OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER",
	} {
		list = append(list, variable{name: name, set: accepted})
	}
	return list
}

// checkTelemetry looks at the variables unless OTEL_SDK_DISABLED says not to. What
// asks for an export that this build does not have is a problem.
func (l *loader) checkTelemetry() {
	if strings.EqualFold(l.env["OTEL_SDK_DISABLED"], "true") {
		return
	}
	for _, v := range telemetryVariables() {
		supported, limited := otelChoices[v.name]
		switch value := l.env[v.name]; {
		case value == "":
		case limited && !slices.Contains(supported, value):
			l.problem(v.name, "asks for an export that is not supported by this build",
				"give "+alternatives(supported)+", or set OTEL_SDK_DISABLED=true")
		case slices.Contains(otelEndpoints, v.name):
			if _, wrong := parseHTTPURL(value); wrong != "" {
				l.problem(v.name, wrong, "give the URL of a collector, such as http://127.0.0.1:4318")
			}
		}
	}
	exporter := l.env["OTEL_TRACES_EXPORTER"]
	asked := exporter == "otlp" || slices.ContainsFunc(otelEndpoints, l.isSet)
	l.cfg.Tracing.Enabled = asked && exporter != "none"
}
