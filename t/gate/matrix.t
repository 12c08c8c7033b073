# Whatever nginx makes of a request, the gate decides it as the semantics say and charges it once, by what its client gets at the end.
# Each cell of the table is a request of an account of its own; what is expected is written by hand, the charges are PostgreSQL's. G22, G27.
use v5.36;
use Billing::Matrix;
use Billing::Process qw(slurp);
use Billing::Test;

# "spent" has used up its quota: all that it gets is what OPTIONS gets, what costs nothing, and the way out.
# A decision of "-": the gate has not been asked, as another part of nginx answered before it, or the method is free.
my $table = <<'END';
# --- answers of the application and of nginx itself: 2xx and 3xx are paid, failures take nothing, OPTIONS is free ---
200                             | has   | plain  | /app/x                          | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
200                             | spent | plain  | /app/x                          | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
200, a file                     | has   | plain  | /file/ok.txt                    | 200 allow 1 | 200 allow 1 | 405 - 0 | 405 allow 0
200, a file                     | spent | plain  | /file/ok.txt                    | 402 deny 0  | 402 deny 0  | 405 - 0 | 402 deny 0
200, a directory's index        | has   | plain  | /file/                          | 200 allow 1 | 200 allow 1 | 405 - 0 | 405 allow 0
206, a file                     | has   | plain  | /file/ok.txt + Range: bytes=0-1 | 206 allow 1 | 206 allow 1 | 405 - 0 | 405 allow 0
206, a file                     | spent | plain  | /file/ok.txt + Range: bytes=0-1 | 402 deny 0  | 402 deny 0  | 405 - 0 | 402 deny 0
206, several ranges             | has   | plain  | /file/ok.txt + Range: bytes=0-0,2-2 | 206 allow 1 | 206 allow 1 | . | .
206, the application's          | has   | plain  | /app/206                        | 206 allow 1 | 206 allow 1 | 206 - 0 | 206 allow 1
416, made of a 200              | has   | plain  | /file/ok.txt + Range: bytes=999-| 416 allow 0 | 416 allow 0 | . | .
304, a file                     | has   | plain  | /file/ok.txt + If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT | 304 allow 1 | 304 allow 1 | 405 - 0 | 405 allow 0
304, a file                     | spent | plain  | /file/ok.txt + If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT | 402 deny 0 | 402 deny 0 | 405 - 0 | 402 deny 0
304, the application's          | has   | plain  | /app/304                        | 304 allow 1 | 304 allow 1 | 304 - 0 | 304 allow 1
412, made of a 200              | has   | plain  | /file/ok.txt + If-Match: "x"    | 412 allow 0 | 412 allow 0 | . | .
301, a directory without slash  | has   | plain  | /file                           | 301 allow 1 | 301 allow 1 | 405 - 0 | 301 allow 1
302, the application's          | has   | plain  | /app/302                        | 302 allow 1 | 302 allow 1 | 302 - 0 | 302 allow 1
4xx, the application's          | has   | plain  | /app/404                        | 404 allow 0 | 404 allow 0 | 404 - 0 | 404 allow 0
4xx, the application's          | spent | plain  | /app/404                        | 402 deny 0  | 402 deny 0  | 404 - 0 | 402 deny 0
402 of the application itself   | has   | plain  | /app/402                        | 402 allow 0 | 402 allow 0 | 402 - 0 | 402 allow 0
4xx, no such file               | has   | plain  | /file/none                      | 404 allow 0 | 404 allow 0 | 405 - 0 | 404 allow 0
413, before the gate            | has   | plain  | /small/x                        | .           | .           | .       | 413 - 0
5xx, the application's          | has   | plain  | /app/500                        | 500 allow 0 | 500 allow 0 | 500 - 0 | 500 allow 0
5xx, the application's          | spent | plain  | /app/500                        | 402 deny 0  | 402 deny 0  | 500 - 0 | 402 deny 0
502, nobody is there            | has   | plain  | /dead/x                         | 502 allow 0 | 502 allow 0 | 502 - 0 | 502 allow 0
504, nobody answers             | has   | plain  | /mute/x                         | 504 allow 0 | 504 allow 0 | 504 - 0 | 504 allow 0

# --- the client goes away: before the application was reached it takes its units back, afterwards it pays ---
gone, the application at work   | has   | gone_asked      | /hand/x                | 499 allow 1 | 499 allow 1 | 499 - 0 | 499 allow 1
gone, yet nginx waits on: 200   | has   | gone_answered   | /patient/200           | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
gone, yet nginx waits on: 500   | has   | gone_answered   | /patient/500           | 500 allow 0 | 500 allow 0 | 500 - 0 | 500 allow 0
gone, the name is looked up     | has   | gone_resolving  | /lost/x?name=%c        | 499 allow 0 | 499 allow 0 | 499 - 0 | 499 allow 0
# Silent: connecting is not yet having contacted; no work has been done.
gone, nginx connects            | has   | gone_connecting | /full/x                | 499 allow 0 | 499 allow 0 | 499 - 0 | 499 allow 0
gone, in its own body           | has   | gone_uploading  | /upload/               | .           | .           | .       | 400 allow 0
gone, held back by limit_req    | has   | gone_delayed    | /delayed/%c            | 499 - 0     | 499 - 0     | 499 - 0 | 499 - 0
gone, a reset of its stream     | has   | gone_reset      | /hand/x                | 499 allow 1 | 499 allow 1 | 499 - 0 | .

# --- caches: who is refused gets nothing out of them, who is not pays for what he gets ---
cache, a hit                    | has   | primed | /cached/x                       | 200 allow 1 HIT   | 200 allow 1 HIT   | 200 - 0 - | 200 allow 1 -
cache, a hit                    | spent | primed | /cached/x                       | 402 deny 0 -      | 402 deny 0 -      | 200 - 0 - | 402 deny 0 -
cache, a hit that is free       | has   | primed | /free-hits/x                    | 200 allow 0 HIT   | 200 allow 0 HIT   | 200 - 0 - | .
cache, a hit that is free       | spent | primed | /free-hits/x                    | 402 deny 0 -      | 402 deny 0 -      | 200 - 0 - | .
cache, a miss beside free hits  | has   | plain  | /free-hits/%c                   | 200 allow 1 MISS  | 200 allow 1 MISS  | 200 - 0 - | .
cache, a miss                   | has   | plain  | /cached/%c                      | 200 allow 1 MISS  | 200 allow 1 MISS  | 200 - 0 - | 200 allow 1 -
cache, a part of a hit          | has   | primed | /cached/part + Range: bytes=0-1 | 206 allow 1 HIT   | 206 allow 1 HIT   | .         | .
cache, an error that is kept    | has   | primed | /cached/404                     | 404 allow 0 HIT   | 404 allow 0 HIT   | 404 - 0 - | 404 allow 0 -
cache, updated in the background| has   | primed | /stale/%c                       | 200 allow 1 STALE | 200 allow 1 STALE | 200 - 0 - | 200 allow 1 -
cache, updated in the background| spent | primed | /stale/%c                       | 402 deny 0 -      | 402 deny 0 -      | 200 - 0 - | 402 deny 0 -
slice                           | has   | plain  | /slice/big.txt?%c               | 200 allow 1       | 200 allow 1       | 405 - 0   | 405 allow 0
slice                           | spent | plain  | /slice/big.txt?%c               | 402 deny 0        | 402 deny 0        | 405 - 0   | 402 deny 0
slice, of a part                | has   | plain  | /slice/big.txt?%c + Range: bytes=500-2500 | 206 allow 1 | 206 allow 1   | .         | .

# --- error_page: the client's final status counts, a page that is dearer costs the difference ---
error_page, status kept         | has   | plain  | /kept/404                       | 404 allow 0 | 404 allow 0 | 404 - 0 | 404 allow 0
# nginx makes a GET of OPTIONS for such a page; it stays the answer to OPTIONS.
error_page, status kept         | spent | plain  | /kept/404                       | 402 deny 0  | 402 deny 0  | 404 - 0 | 402 deny 0
error_page, another rule        | has   | plain  | /keptdear/404                   | 404 allow 0 | 404 allow 0 | 404 - 0 | 404 allow 0
error_page, another rule        | spent | plain  | /keptdear/404                   | 402 deny 0  | 402 deny 0  | 404 - 0 | 402 deny 0
error_page makes it a success   | has   | plain  | /saved/500                      | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
error_page makes it a success   | spent | plain  | /saved/500                      | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
# Silent: a success that nginx gets by a GET of its own is decided as that GET, or OPTIONS would lead around the gate. It costs nothing.
error_page =200 with a path     | has   | plain  | /savedpath/500                  | 200 allow 1 | 200 allow 1 | 200 allow 0 | 200 allow 1
error_page =200 with a path     | spent | plain  | /savedpath/500                  | 402 deny 0  | 402 deny 0  | 402 deny 0  | 402 deny 0
error_page, dearer              | has   | plain  | /dearer/404                     | 200 allow 5 | 200 allow 5 | 200 - 0 | 200 allow 5
error_page, not in the plan     | has   | plain  | /beyond/404                     | 403 deny 0  | 403 deny 0  | 200 - 0 | 403 deny 0
# The refusal of a page is the answer, with its own status.
error_page =200, not in the plan| has   | plain  | /beyondsaved/404                | 403 deny 0  | 403 deny 0  | 200 - 0 | 403 deny 0
error_page kept, not in the plan| has   | plain  | /beyondkept/404                 | 403 deny 0  | 403 deny 0  | 404 - 0 | 403 deny 0
error_page fails in its turn    | has   | plain  | /worse/404                      | 502 allow 0 | 502 allow 0 | 502 - 0 | 502 allow 0
error_page of a refusal         | spent | plain  | /upsell/x                       | 200 deny 0  | 200 deny 0  | 200 - 0 | 200 deny 0
error_page of a refusal         | has   | plain  | /upsell/x                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
error_page of a refusal, kept   | spent | plain  | /upsellkept/x                   | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
error_page of a refusal, away   | spent | plain  | /upsellaway/x                   | 302 deny 0  | 302 deny 0  | 200 - 0 | 302 deny 0
error_page of a refusal, dead   | spent | plain  | /upselldead/x                   | 502 deny 0  | 502 deny 0  | 200 - 0 | 502 deny 0
error_page of the app's 402     | has   | plain  | /theirs/402                     | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1

# --- redirects inside nginx ---
X-Accel-Redirect                | has   | plain  | /accel/inside                   | 200 allow 1 | 200 allow 1 | 200 allow 0 | 200 allow 1
X-Accel-Redirect                | spent | plain  | /accel/inside                   | 402 deny 0  | 402 deny 0  | 402 deny 0  | 402 deny 0
X-Accel-Redirect, dearer        | has   | plain  | /accel/dear                     | 200 allow 5 | 200 allow 5 | 200 allow 0 | 200 allow 5
X-Accel-Redirect, not in plan   | has   | plain  | /accel/premium                  | 403 deny 0  | 403 deny 0  | 403 deny 0  | 403 deny 0
X-Accel-Redirect, named         | has   | plain  | /accel/named                    | 200 allow 1 | 200 allow 1 | 200 - 0     | 200 allow 1
X-Accel-Redirect from the free  | has   | plain  | /freeaccel/inside               | 200 allow 1 | 200 allow 1 | 200 allow 0 | 200 allow 1
X-Accel-Redirect from the free  | spent | plain  | /freeaccel/inside               | 402 deny 0  | 402 deny 0  | 402 deny 0  | 402 deny 0
try_files, a file               | has   | plain  | /try/ok.txt                     | 200 allow 1 | 200 allow 1 | 405 - 0 | 405 allow 0
try_files, a named location     | has   | plain  | /try/none                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
try_files, a named location     | spent | plain  | /try/none                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
try_files, a path               | has   | plain  | /trypath/none                   | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
try_files, a status             | has   | plain  | /trystatus/none                 | 404 allow 0 | 404 allow 0 | 404 - 0 | 404 allow 0
named location, gated, from free| has   | plain  | /freetry/none                   | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
named location, gated, from free| spent | plain  | /freetry/none                   | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
named location, free, from gated| has   | plain  | /tryfree/none                   | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
named location, free, from gated| spent | plain  | /tryfree/none                   | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
named location, dearer          | has   | plain  | /trydear/none                   | 200 allow 5 | 200 allow 5 | 200 - 0 | 200 allow 5
rewrite to another location     | has   | plain  | /rewritten/x                    | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
rewrite to another location     | spent | plain  | /rewritten/x                    | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
rewrite that redirects          | has   | plain  | /moved/x                        | 302 - 0     | 302 - 0     | 302 - 0 | 302 - 0
return                          | spent | plain  | /returned/x                     | 204 - 0     | 204 - 0     | 204 - 0 | 204 - 0
if                              | has   | plain  | /if/x?a=1                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
if                              | spent | plain  | /if/x?a=1                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
if, with return                 | spent | plain  | /if/x?b=1                       | 204 - 0     | 204 - 0     | 204 - 0 | 204 - 0

# --- subrequests: their rules are checked, the client's request pays once ---
SSI, all of it gated            | has   | plain  | /ssi/page                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
SSI, all of it gated            | spent | plain  | /ssi/page                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
SSI, a free page                | has   | plain  | /freessi/page                   | 200 - 1     | 200 - 0     | 200 - 0 | 200 - 1
SSI, a free page                | spent | plain  | /freessi/page                   | 200 - 0     | 200 - 0     | 200 - 0 | 200 - 0
SSI, includes what is dearer    | has   | plain  | /ssi/dear                       | 200 allow 5 | 200 allow 1 | 200 - 0 | 200 allow 5
SSI, includes what is refused   | has   | plain  | /ssi/premium                    | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
SSI, includes what fails        | has   | plain  | /ssi/failing                    | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
addition                        | has   | plain  | /added/x                        | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
mirror                          | has   | plain  | /mirror/x                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
mirror                          | spent | plain  | /mirror/x                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
mirror to what is dearer        | has   | plain  | /mirrordear/x                   | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
mirror to what is refused       | has   | plain  | /mirrorpremium/x                | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
mirror, from the free           | has   | plain  | /freemirror/x                   | 200 - 0     | 200 - 0     | 200 - 0 | 200 - 0
auth_request, yes               | has   | plain  | /auth/x                         | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
auth_request, yes               | spent | plain  | /auth/x                         | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
auth_request, no                | has   | plain  | /noauth/x                       | 403 - 0     | 403 - 0     | 403 - 0 | 403 - 0
auth_request to what is gated   | has   | plain  | /gatedauth/x                    | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
# Silent: auth_request knows yes, 401 and 403; of any other refusal it makes a 500, which a policy never is.
auth_request to what is gated   | spent | plain  | /gatedauth/x                    | 403 - 0     | 403 - 0     | 200 - 0 | 403 - 0

# --- beside other modules ---
satisfy any                     | has   | plain  | /any/x                          | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
satisfy any                     | spent | plain  | /any/x                          | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
satisfy any, by auth_request    | has   | plain  | /anyauth/x                      | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
satisfy any, by auth_request    | spent | plain  | /anyauth/x                      | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
deny                            | has   | plain  | /denied/x                       | 403 - 0     | 403 - 0     | 403 - 0 | 403 - 0
limit_req lets it pass          | has   | plain  | /limited/x                      | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
limit_req lets it pass          | spent | plain  | /limited/x                      | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
limit_req says no               | has   | primed | /overlimit/x                    | 429 - 0     | 429 - 0     | 429 - 0 | 429 - 0
limit_req says no               | spent | primed | /overlimit/x                    | 429 - 0     | 429 - 0     | 429 - 0 | 429 - 0
proxy_next_upstream, dead       | has   | plain  | /next/x                         | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
proxy_next_upstream, dead       | spent | plain  | /next/x                         | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
proxy_next_upstream, a 500      | has   | plain  | /nextfailing/x                  | 200 allow 1 | 200 allow 1 | 200 - 0 | 500 allow 0
proxy_next_upstream, all dead   | has   | plain  | /nextnone/x                     | 502 allow 0 | 502 allow 0 | 502 - 0 | 502 allow 0

# --- connections ---
HTTP/2                          | has   | http2     | /app/x                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
HTTP/2                          | spent | http2     | /app/x                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
HTTP/2, a failure               | has   | http2     | /app/500                     | 500 allow 0 | 500 allow 0 | 500 - 0 | 500 allow 0
keepalive                       | has   | keepalive | /app/x                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
keepalive                       | spent | keepalive | /app/x                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
pipelined                       | has   | pipelined | /app/x                       | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
pipelined                       | spent | pipelined | /app/x                       | 402 deny 0  | 402 deny 0  | 200 - 0 | 402 deny 0
pipelined, failures             | has   | pipelined | /app/404                     | 404 allow 0 | 404 allow 0 | 404 - 0 | 404 allow 0
websocket                       | has   | websocket | /socket/x                    | 101 allow 1 | .           | .       | .
websocket                       | spent | websocket | /socket/x                    | 402 deny 0  | .           | .       | .
websocket, refused by the app   | has   | plain     | /app/404 + Upgrade: websocket| 404 allow 0 | .           | .       | .
server-sent events              | has   | events    | /hand/x                      | 200 allow 1 | 200 allow 1 | 200 - 0 | 200 allow 1
server-sent events              | spent | events    | /stream/x                    | 402 deny 0  | 402 deny 0  | . | 402 deny 0
gRPC                            | has   | grpc      | /grpc/ok                     | .           | .           | .       | 200 allow 1
gRPC                            | spent | grpc      | /grpc/ok                     | .           | .           | .       | 200 deny 0
# Silent: a call's outcome is its grpc-status, whatever HTTP says; one that has failed takes nothing.
gRPC, a failure at once         | has   | grpc      | /grpc/failed                 | .           | .           | .       | 200 allow 0
gRPC, a failure at the end      | has   | grpc      | /grpc/late                   | .           | .           | .       | 200 allow 0
gRPC, a success at once         | has   | grpc      | /grpc/zero                   | .           | .           | .       | 200 allow 1
gRPC, nobody is there           | has   | grpc      | /grpcdead/x                  | .           | .           | .       | 502 allow 0
END

my $catalog = Billing::Test->sample_catalog;
$catalog->{plans}{free}{quotas} = {requests => 1000};
$_->{quotas} = {requests => 100_000} for map { $catalog->{plans}{$_} } qw(starter pro agency);

my $behind = <<'END';
    log_format cell '$http_authorization $status $billing_decision $upstream_cache_status';
    log_format asked '$http_authorization';
    proxy_cache_path %%PREFIX%%/cache keys_zone=cache:1m;
    limit_req_zone $server_addr zone=many:1m rate=1000r/s;
    limit_req_zone $server_addr zone=few:1m rate=1r/m;
    limit_req_zone $uri zone=slow:1m rate=1r/m;
    upstream origin { server 127.0.0.1:%%PORT_origin%%; keepalive 16; }
    upstream next { server 127.0.0.1:1 max_fails=0; server 127.0.0.1:%%PORT_origin%% backup; }
    upstream nextfailing { server 127.0.0.1:%%PORT_failing%% max_fails=0; server 127.0.0.1:%%PORT_origin%% backup; }
    upstream nextnone { server 127.0.0.1:1 max_fails=0; server 127.0.0.1:2 max_fails=0; }
    server {
        listen 127.0.0.1:%%PORT_failing%%;
        location / { return 500; }
    }
    server {    # the application
        listen 127.0.0.1:%%PORT_origin%%;
        root %%PREFIX%%/static;
        default_type text/plain;
        access_log %%PREFIX%%/asked.log asked;
        location / { return 200 "served\n"; }
        location ~ ^/stale { add_header X-Accel-Expires @1; return 200 "soon stale\n"; }
        location ~ /206$ { return 206 "part\n"; }
        location ~ /302$ { return 302 /elsewhere; }
        location ~ /304$ { return 304; }
        location ~ /402$ { return 402 "theirs\n"; }
        location ~ /404$ { return 404 "no\n"; }
        location ~ /500$ { return 500 "broken\n"; }
        location ~ accel/inside$ { add_header X-Accel-Redirect /inside/ok.txt; return 200; }
        location ~ accel/dear$ { add_header X-Accel-Redirect /insidedear/ok.txt; return 200; }
        location ~ accel/premium$ { add_header X-Accel-Redirect /insidepremium/ok.txt; return 200; }
        location ~ accel/named$ { add_header X-Accel-Redirect @origin; return 200; }
        location ~ ssi/page$ { default_type text/html; return 200 '<!--#include virtual="/app/a" --><!--#include virtual="/app/b" -->'; }
        location ~ ssi/dear$ { default_type text/html; return 200 '<!--#include virtual="/dear/a" -->'; }
        location ~ ssi/premium$ { default_type text/html; return 200 '<!--#include virtual="/premium/a" -->'; }
        location ~ ssi/failing$ { default_type text/html; return 200 '<!--#include virtual="/app/500" -->'; }
        location ~ ^/added/ { default_type text/html; return 200 'page'; }
        location /slice/ { alias %%PREFIX%%/static/; }
    }
    server {    # what stands in for pages of ours and for shadows: who asks it is written down elsewhere
        listen 127.0.0.1:%%PORT_beside%%;
        access_log %%PREFIX%%/beside.log asked;
        location / { return 200 "beside\n"; }
    }
    server {
        listen 127.0.0.1:%%PORT_grpc%% http2;
        root %%PREFIX%%/static;
        default_type application/grpc;
        access_log %%PREFIX%%/asked.log asked;
        error_page 405 =200 $uri;    # a file answers POST
        location /grpc/ok { alias %%PREFIX%%/static/ok.txt; add_trailer grpc-status 0; }
        location /grpc/late { alias %%PREFIX%%/static/ok.txt; add_trailer grpc-status 14; }
        location /grpc/failed { add_header grpc-status 13; return 200; }
        location /grpc/zero { add_header grpc-status 0; return 200; }
    }
END

my $locations = <<'END';
    listen 127.0.0.1:%%PORT_h2%% http2;
    root %%PREFIX%%/static;
    access_log %%PREFIX%%/cells.log cell;
    client_max_body_size 20k;
    proxy_intercept_errors on;
    if_modified_since before;
    billing on;
    billing_account $user;
    billing_quota requests;
    location /app/ { proxy_pass http://origin; }
    location /upload/ { client_body_in_file_only clean; client_body_buffer_size 1k; proxy_pass http://origin; }
    location = /drain { access_log off; billing_quota requests cost=$arg_cost; alias %%PREFIX%%/static/ok.txt; }
    location /file/ { index ok.txt; alias %%PREFIX%%/static/; }
    location = /file { alias %%PREFIX%%/static; }
    location /small/ { client_max_body_size 1; proxy_pass http://origin; }
    location /dead/ { proxy_pass http://127.0.0.1:1; }
    location /mute/ { proxy_read_timeout 50ms; proxy_pass http://127.0.0.1:%%PORT_mute%%; }
    location /hand/ { proxy_buffering off; proxy_pass http://127.0.0.1:%%PORT_hand%%; }
    location /stream/ { proxy_buffering off; lingering_close off; proxy_pass http://127.0.0.1:%%PORT_hand%%; }
    location /patient/ { proxy_ignore_client_abort on; proxy_pass http://127.0.0.1:%%PORT_hand%%; }
    location /lost/ { resolver 127.0.0.1:%%PORT_names%%; proxy_pass http://$arg_name.test; }
    location /full/ { proxy_pass http://127.0.0.1:%%PORT_full%%; }
    location /delayed/ { limit_req zone=slow burst=5; proxy_pass http://origin; }

    location /free-hits/ { billing_cache_hits free; proxy_cache cache; proxy_cache_valid 200 1h; proxy_pass http://origin; }
    location /cached/ { proxy_cache cache; proxy_cache_valid 200 404 1h; proxy_force_ranges on; proxy_pass http://origin; }
    location /stale/ { proxy_cache cache; proxy_cache_use_stale updating; proxy_cache_background_update on; proxy_pass http://origin; }
    location /slice/ { slice 1k; proxy_cache cache; proxy_cache_key $uri$is_args$args$slice_range; proxy_set_header Range $slice_range; proxy_cache_valid 200 206 1h; proxy_pass http://origin; }

    location /kept/ { error_page 404 /file/ok.txt; proxy_pass http://origin; }
    location /keptdear/ { error_page 404 /insidedear/ok.txt; proxy_pass http://origin; }
    location /saved/ { error_page 500 =200 @origin; proxy_pass http://origin; }
    location /savedpath/ { error_page 500 =200 /file/ok.txt; proxy_pass http://origin; }
    location /dearer/ { error_page 404 = @dear; proxy_pass http://origin; }
    location /beyond/ { error_page 404 = @premium; proxy_pass http://origin; }
    location /beyondsaved/ { error_page 404 =200 @premium; proxy_pass http://origin; }
    location /beyondkept/ { error_page 404 @premium; proxy_pass http://origin; }
    location /worse/ { error_page 404 = @dead; proxy_pass http://origin; }
    location /upsell/ { error_page 402 = @upsell; proxy_pass http://origin; }
    location /upsellkept/ { error_page 402 /file/ok.txt; proxy_pass http://origin; }
    location /upsellaway/ { error_page 402 =302 https://example.com/pricing; proxy_pass http://origin; }
    location /upselldead/ { error_page 402 = @dead; proxy_pass http://origin; }
    location /theirs/ { error_page 402 = @upsell; proxy_pass http://origin; }
    location @origin { rewrite ^ /served break; proxy_pass http://origin; }
    location @dear { billing_quota requests cost=5; rewrite ^ /served break; proxy_pass http://origin; }
    location @premium { billing_feature white_label; rewrite ^ /served break; proxy_pass http://origin; }
    location @dead { proxy_pass http://127.0.0.1:1; }
    location @upsell { proxy_pass http://127.0.0.1:%%PORT_beside%%; }
    location @free { billing off; rewrite ^ /served break; proxy_pass http://origin; }

    location /accel/ { proxy_pass http://origin; }
    location /freeaccel/ { billing off; proxy_pass http://origin; }
    location /inside/ { internal; alias %%PREFIX%%/static/; }
    location /insidedear/ { internal; billing_quota requests cost=5; alias %%PREFIX%%/static/; }
    location /insidepremium/ { internal; billing_feature white_label; alias %%PREFIX%%/static/; }
    location /try/ { rewrite ^/try(/.*)$ $1 break; try_files $uri @origin; }
    location /trypath/ { try_files $uri /app/x; }
    location /trystatus/ { try_files $uri =404; }
    location /freetry/ { billing off; try_files $uri @origin; }
    location /tryfree/ { try_files $uri @free; }
    location /trydear/ { try_files $uri @dear; }
    location /rewritten/ { rewrite ^ /app/x last; }
    location /moved/ { rewrite ^ /elsewhere redirect; }
    location /returned/ { return 204; }
    location /if/ {
        if ($arg_a) { proxy_pass http://origin; }
        if ($arg_b) { return 204; }
    }

    location /ssi/ { ssi on; proxy_pass http://origin; }
    location /freessi/ { billing off; ssi on; proxy_pass http://origin; }
    location /dear/ { billing_quota requests cost=5; proxy_pass http://origin; }
    location /premium/ { billing_feature white_label; proxy_pass http://origin; }
    location /added/ { add_after_body /app/footer; proxy_pass http://origin; }
    location /mirror/ { mirror /shadow/same; proxy_pass http://origin; }
    location /mirrordear/ { mirror /shadow/dear; proxy_pass http://origin; }
    location /mirrorpremium/ { mirror /shadow/premium; proxy_pass http://origin; }
    location /freemirror/ { billing off; mirror /shadow/same; proxy_pass http://origin; }
    location /shadow/same { internal; proxy_pass http://127.0.0.1:%%PORT_beside%%; }
    location /shadow/dear { internal; billing_quota requests cost=5; proxy_pass http://127.0.0.1:%%PORT_beside%%; }
    location /shadow/premium { internal; billing_feature white_label; proxy_pass http://127.0.0.1:%%PORT_beside%%; }
    location /auth/ { auth_request /check/yes; proxy_pass http://origin; }
    location /noauth/ { auth_request /check/no; proxy_pass http://origin; }
    location /gatedauth/ { auth_request /check/gated; proxy_pass http://origin; }
    location = /check/yes { billing off; return 204; }
    location = /check/no { billing off; return 403; }
    location = /check/gated { alias %%PREFIX%%/static/ok.txt; }

    location /any/ { satisfy any; allow all; proxy_pass http://origin; }
    location /anyauth/ { satisfy any; deny all; auth_request /check/yes; proxy_pass http://origin; }
    location /denied/ { deny all; proxy_pass http://origin; }
    location /limited/ { limit_req zone=many burst=1000 nodelay; proxy_pass http://origin; }
    location /overlimit/ { limit_req zone=few; limit_req_status 429; proxy_pass http://origin; }
    location /next/ { proxy_pass http://next; }
    location /nextfailing/ { proxy_next_upstream error http_500; proxy_pass http://nextfailing; }
    location /nextnone/ { proxy_pass http://nextnone; }

    location /socket/ { proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade; proxy_pass http://127.0.0.1:%%PORT_hand%%; }
    location /grpc/ { grpc_pass grpc://127.0.0.1:%%PORT_grpc%%; }
    location /grpcdead/ { grpc_pass grpc://127.0.0.1:1; }
END

my $world = world(catalog => $catalog, http => $behind, locations => $locations);
my $host = $world->host;
my $folder = $host->directory;
mkdir "$folder/static";
Billing::Nginx::write_file("$folder/static/ok.txt", "a file\n");
Billing::Nginx::write_file("$folder/static/big.txt", 'x' x 5000);

my $matrix = Billing::Matrix->new($host);
$matrix->read_table($table);
$matrix->watch("$folder/cells.log");
$matrix->drain('/drain');
$matrix->run;
$host->reload;    # waits for all requests, and reports what has been spent

my %used = map { $_->{external_id} => $_->{used} } $world->sql(q{SELECT external_id, sum(used) AS used FROM billing.quota_periods q
    JOIN billing.accounts a ON a.id = q.account_id GROUP BY external_id});
my (%asked, %shadowed);
$asked{$_}++ for map { /^Bearer test:(\w+)/ } split /\n/, slurp("$folder/asked.log");
$shadowed{$_}++ for map { /^Bearer test:(\w+)/ } split /\n/, slurp("$folder/beside.log");
$matrix->check($matrix->logged("$folder/cells.log"), \%used, \%asked);

for my $cell (grep { $_->{path} =~ m{^/\w*mirror} } $matrix->cells) {
    my $wanted = $cell->{path} =~ /premium/ || $cell->{spent} ? 0 : 1;
    $wanted = 1 if $cell->{method} eq 'OPTIONS';
    is $shadowed{$cell->{account}} // 0, $wanted, "$cell->{situation}: " . ($wanted ? 'is mirrored' : 'is not mirrored');
}
is_deeply [$world->sql('SELECT account_id, issued, used FROM billing.quota_periods WHERE used > issued OR used < 0')], [], 'nobody used what was not issued';
done_testing;
