{{- define "lattice.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "lattice.fullname" -}}
{{ include "lattice.name" . | trunc 48 | trimSuffix "-" }}-control
{{- end }}

{{- define "lattice.selector" -}}
app.kubernetes.io/name: latticed
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lattice.labels" -}}
{{ include "lattice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "lattice.names" -}}
{{- $name := include "lattice.fullname" . -}}
{{- $ns := .Release.Namespace -}}
{{- $own := list $name (printf "%s.%s" $name $ns) (printf "%s.%s.svc" $name $ns) .Values.service.clusterIP -}}
{{- concat (compact $own) .Values.hosts | join "," -}}
{{- end }}
