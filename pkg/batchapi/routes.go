package batchapi

import (
	"net/http"
)

// route is one thing that can be asked for.
type route struct {
	pattern string // of http.ServeMux
	scope   Scope  // what the caller's key must allow; "" = anybody may
	body    int64  // bytes of the request at most; 0 = it has none worth reading, bodyOfFile = what a file may have
	serve   func(h *Handler, w http.ResponseWriter, r *http.Request, c Caller) error
}

const (
	bodyOfFile = -1
	bodyOfJSON = 1 << 20
)

// routes is the table of all there is.
var routes = []route{
	{"GET /healthz", "", 0, (*Handler).health},

	{"POST /v1/files", ScopeSubmit, bodyOfFile, (*Handler).createFile},
	{"GET /v1/files", ScopeRead, 0, (*Handler).listFiles},
	{"GET /v1/files/{id}", ScopeRead, 0, (*Handler).getFile},
	{"DELETE /v1/files/{id}", ScopeSubmit, 0, (*Handler).deleteFile},
	{"GET /v1/files/{id}/content", ScopeRead, 0, (*Handler).readFile},
	{"PUT /v1/files/{id}/content", "", bodyOfFile, (*Handler).bringFile}, // a token of the file lets in

	{"POST /v1/uploads", ScopeSubmit, bodyOfJSON, (*Handler).createUpload},
	{"POST /v1/uploads/{id}/parts", ScopeSubmit, bodyOfFile, (*Handler).addPart},
	{"POST /v1/uploads/{id}/complete", ScopeSubmit, bodyOfJSON, (*Handler).completeUpload},
	{"POST /v1/uploads/{id}/cancel", ScopeSubmit, bodyOfJSON, (*Handler).cancelUpload},

	{"POST /v1/batches", ScopeSubmit, bodyOfJSON, (*Handler).createBatch},
	{"GET /v1/batches", ScopeRead, 0, (*Handler).listBatches},
	{"GET /v1/batches/{id}", ScopeRead, 0, (*Handler).getBatch},
	{"POST /v1/batches/{id}/cancel", ScopeSubmit, bodyOfJSON, (*Handler).cancelBatch},
	{"GET /v1/batches/{id}/results", ScopeRead, 0, (*Handler).readResults},
	{"GET /v1/batches/{id}/events", ScopeRead, 0, (*Handler).watchBatch},

	{"GET /v1/models", ScopeRead, 0, (*Handler).listModels},
	{"GET /v1/models/{id...}", ScopeRead, 0, (*Handler).getModel},

	{"POST /fanout/v1/keys", ScopeOperate, bodyOfJSON, (*Handler).createKey},
	{"GET /fanout/v1/keys", ScopeOperate, 0, (*Handler).listKeys},
	{"DELETE /fanout/v1/keys/{id}", ScopeOperate, 0, (*Handler).revokeKey},

	{"POST /fanout/v1/jobs/{id}/pause", ScopeOperate, bodyOfJSON, (*Handler).pauseJob},
	{"POST /fanout/v1/jobs/{id}/resume", ScopeOperate, bodyOfJSON, (*Handler).resumeJob},
	{"POST /fanout/v1/jobs/{id}/cancel", ScopeOperate, bodyOfJSON, (*Handler).cancelJob},
	{"POST /fanout/v1/jobs/{id}/retry", ScopeOperate, bodyOfJSON, (*Handler).retryJob},
	{"GET /fanout/v1/jobs/{id}/errors", ScopeOperate, 0, (*Handler).listTroubles},
	{"GET /fanout/v1/jobs", ScopeOperate, 0, (*Handler).listJobs},
	{"GET /fanout/v1/jobs/{id}", ScopeOperate, 0, (*Handler).getJob},
	{"GET /fanout/v1/jobs/{id}/results", ScopeOperate, 0, (*Handler).readJobResults},
	{"GET /fanout/v1/upstreams", ScopeOperate, 0, (*Handler).listUpstreams},
	{"POST /fanout/v1/upstreams/pause", ScopeOperate, bodyOfJSON, (*Handler).pauseUpstream},
	{"POST /fanout/v1/upstreams/resume", ScopeOperate, bodyOfJSON, (*Handler).resumeUpstream},
	{"GET /fanout/v1/tenants/{tenant}/limits", ScopeOperate, 0, (*Handler).getLimits},
	{"PUT /fanout/v1/tenants/{tenant}/limits", ScopeOperate, bodyOfJSON, (*Handler).setLimits},
	{"GET /fanout/v1/errors", ScopeOperate, 0, (*Handler).listFleetTroubles},

	{"GET /fanout/v1/dead-letters", ScopeOperate, 0, (*Handler).listDead},
	{"GET /fanout/v1/dead-letters/{id}", ScopeOperate, 0, (*Handler).getDead},
	{"POST /fanout/v1/dead-letters/redrive", ScopeOperate, bodyOfJSON, (*Handler).redrive},
	{"POST /fanout/v1/dead-letters/follow", ScopeOperate, bodyOfJSON, (*Handler).follow},
	{"POST /fanout/v1/dead-letters/purge", ScopeOperate, bodyOfJSON, (*Handler).purgeDead},
	{"GET /fanout/v1/queues", ScopeOperate, 0, (*Handler).listQueues},
	{"GET /fanout/v1/queues/{queue}/letters", ScopeOperate, 0, (*Handler).listLetters},
	{"POST /fanout/v1/queues/{queue}/purge", ScopeOperate, bodyOfJSON, (*Handler).purgeLetters},
	{"POST /fanout/v1/queues/{queue}/move", ScopeOperate, bodyOfJSON, (*Handler).moveLetters},
	{"DELETE /fanout/v1/queues/{queue}/move", ScopeOperate, 0, (*Handler).stopMove},
	{"GET /fanout/v1/audit", ScopeOperate, 0, (*Handler).listAudit},

	{"POST /fanout/v1/hooks", ScopeOperate, bodyOfJSON, (*Handler).createHook},
	{"GET /fanout/v1/hooks", ScopeOperate, 0, (*Handler).listHooks},
	{"DELETE /fanout/v1/hooks/{id}", ScopeOperate, 0, (*Handler).deleteHook},
	{"GET /fanout/v1/deliveries", ScopeOperate, 0, (*Handler).listDeliveries},
	{"POST /fanout/v1/deliveries/{id}/replay", ScopeOperate, bodyOfJSON, (*Handler).replayDelivery},
}
