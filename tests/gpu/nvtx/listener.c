/* What a profiler hears of NVTX: each range of a domain, a line in the file that HALFSTEP_NVTX_LOG names. */
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>

static FILE* log_file;

static int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* attributes) {
  (void)domain;
  if (log_file) fprintf(log_file, "push %s\n", attributes->message.ascii), fflush(log_file);
  return 0;
}
static int pop(nvtxDomainHandle_t domain) {
  (void)domain;
  if (log_file) fprintf(log_file, "pop\n"), fflush(log_file);
  return 0;
}
static nvtxRangeId_t start(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* attributes) {
  static nvtxRangeId_t last;
  (void)domain;
  if (log_file) fprintf(log_file, "start %s\n", attributes->message.ascii), fflush(log_file);
  return ++last;
}
static void end(nvtxDomainHandle_t domain, nvtxRangeId_t id) {
  (void)domain, (void)id;
  if (log_file) fprintf(log_file, "end\n"), fflush(log_file);
}

__attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table) {
  const NvtxExportTableCallbacks* const callbacks =
      (const NvtxExportTableCallbacks*)get_table(NVTX_ETID_CALLBACKS);
  NvtxFunctionTable table = NULL;
  unsigned size = 0;
  const char* const path = getenv("HALFSTEP_NVTX_LOG");
  if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) || !path) return 0;
  log_file = fopen(path, "a");
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
  *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
  *table[NVTX_CBID_CORE2_DomainRangeStartEx] = (NvtxFunctionPointer)start;
  *table[NVTX_CBID_CORE2_DomainRangeEnd] = (NvtxFunctionPointer)end;
  return 1;
}
