// The fields by which the product speaks to applications, X-Billing-..., are its own: what a client sends under such a
// name is taken off the request while nginx parses it, before anything can read or forward it. Installed in the master
// when the configuration has been read.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// From now on the parsers of HTTP/1 and HTTP/2 drop these fields: each name that the product uses, and one for each
// $billing_attr_NAME of the configuration.
ngx_int_t claim_own_fields(ngx_conf_t* cf);

} // namespace billing
