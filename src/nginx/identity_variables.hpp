// $billing_jwt_claim_NAME and $billing_api_key_account: whom a request's own credentials name. Empty unless they are
// good.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// nginx's hook, before the configuration is read.
ngx_int_t add_identity_variables(ngx_conf_t* cf);

} // namespace billing
