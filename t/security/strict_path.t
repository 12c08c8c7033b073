# The promise: under `billing_strict_path on` a path that the application may read differently from nginx goes nowhere, gated or not; what
# all read alike passes, with any query. "Where the gate stands in nginx" of the semantics.
use v5.36;
use Billing::Test;

my $world = world(locations => <<'END');
    billing_account $user;
    location /api/ { billing on; billing_feature svg_export; billing_strict_path on; proxy_pass http://app; }
    location /free/ { billing_strict_path on; proxy_pass http://app; }
    location /page/ { billing_strict_path on; error_page 400 /said; proxy_pass http://app; }
    location = /said { return 200 "said plainly"; }
    location /old/ { proxy_pass http://app; }
END
my $host = $world->host;

sub ask($target, $method = 'GET', $body = '') {
    my $socket = $host->connect;
    print $socket "$method $target HTTP/1.1\r\nHost: x\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    local $/;
    return Billing::Client::Response->parse({in => scalar <$socket>, begun => 0});
}

for my $target ('/free/..;/api/x', '/free/x;v=1', '/free/..%5capi/x', '/free/%252fapi', '/free//api/x', '/free/./x', '/free/%2e%2e/free/x', '/free/%c0%af') {
    my $answer = ask($target);
    is $answer->status, 400, "$target is refused";
    is $answer->json->{code}, 'INVALID_PATH', 'by a problem document';
}
is ask('/free/..;/api/x', 'POST', 'x' x 100_000)->status, 400, 'with a body too';
is $world->app->count, 0, 'and the application has seen none of it';
is ask('/page/x;y')->body, 'said plainly', 'an error page takes its place';
is ask($_)->status, 200, "$_ passes" for '/free/x.svg', '/free/caf%C3%A9?back=%2F..;//', '/old/..;/x', '/free/a%20b';
is ask('/api/x')->status, 401, 'a plain path comes to the gate';
is ask('/api/x;y')->status, 400, 'another does not';
is ask('/old/../free/x;y')->status, 400, 'the location that nginx finds decides';
$host->wait_log(qr/\[info\].*billing: refused with 400 INVALID_PATH/);
done_testing;
