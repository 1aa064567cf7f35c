/* What the library's own programs may do with a session beyond larq_clip.h. */
#ifndef LQC_SESSION_H
#define LQC_SESSION_H

#include "larq_clip.h"

/* lqc_session_run() without its check of the inputs: what a layer in the middle of a network costs. */
void lqc_session_run_ops(lqc_session *session);

#endif /* LQC_SESSION_H */
