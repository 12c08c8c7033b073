# The promise: what a client sends under a name of ours never reaches an application or a variable, however it writes the name and
# wherever in the request it stands; and what else it sends arrives as it was. A1, A3.
use v5.36;
use Billing::Process qw(root);
use Billing::Test;

my $world = world(server => 'listen 127.0.0.1:%%PORT_h2%% http2;', http => <<'HTTP', locations => <<'END');
    map $uri $uses_attributes { default "$billing_attr_max_tokens $billing_attr_a_b_c_d_e_f_g"; }
    server {
        listen 127.0.0.1:%%PORT_under%%;
        listen 127.0.0.1:%%PORT_underh2%% http2;
        underscores_in_headers on;
        location / { proxy_pass http://app; }
    }
    server {
        listen 127.0.0.1:%%PORT_invalid%%;
        listen 127.0.0.1:%%PORT_invalidh2%% http2;
        ignore_invalid_headers off;
        location / { proxy_pass http://app; }
    }
    server {
        listen 127.0.0.1:%%PORT_both%%;
        underscores_in_headers on;
        ignore_invalid_headers off;
        location / { proxy_pass http://app; }
    }
HTTP
    billing_account $user;
    location / { proxy_pass http://app; add_header X-Seen "$http_x_billing_plan$http_x_billing_account" always; }
    location /gated/ { billing on; billing_quota requests; proxy_pass http://app; add_header X-Account $billing_account; }
    location /read/ { return 200 "plan=$http_x_billing_plan"; }
END
my $host = $world->host;

sub ask($port, $path, @lines) {
    my $socket = IO::Socket::INET->new(PeerAddr => $host->address($port)) // die "connect: $!\n";
    print $socket join "\r\n", "GET $path HTTP/1.1", 'Host: here', @lines, 'Connection: close', '', '';
    local $/;
    return Billing::Client::Response->parse({in => scalar <$socket>, begun => 0});
}
sub arrived(@asked) { ask(@asked)->json->{headers} }
sub forged($headers) { join ', ', grep { /billing/i } sort keys %$headers }

my @names = qw(Account Plan Status Features Remaining Reservation Priority Warning Cost Time Grace Decision Reason Limit Reset Source);
my @all = map { "X-Billing-$_: agency" } @names;
my $headers = arrived('main', '/x', @all, 'X-Other: mine', 'X-Billings: mine', 'X-Billing: mine');
is_deeply [map { $headers->{$_} } qw(x-other x-billings x-billing)], [('mine') x 3], 'A3: what has another name arrives';
is_deeply [grep { /x-billing-/ } keys %$headers], [], 'A3: no name of ours does';
is forged(arrived('main', '/gated/x', 'Authorization: Bearer test:a', @all)), '', 'A3: nor through the gate';
is ask('main', '/gated/x', 'Authorization: Bearer test:a', 'X-Billing-Account: b')->header('X-Account'), 'a', 'A1: the account is the configured one';
is ask('main', '/x', @all)->header('X-Seen'), undef, 'A3: no variable has them';
is ask('main', '/read/x', 'X-Billing-Plan: agency')->body, 'plan=', 'A3: not even without an application';

is forged(arrived('main', '/x', 'X-Billing-Max-Tokens: 9', 'x-billing-A-B-C-D-E-F-G: 9')), '', 'A3: nor those of the attributes in use';
for my $line ('x-billing-plan: a', 'X-BILLING-PLAN: a', 'X-Billing-Plan:a', 'X-Billing-Plan:', "X-Billing-Plan: " . 'a' x 2000) {
    is forged(arrived('main', '/x', $line, 'X-Other: mine')), '', substr($line, 0, 20) . ' is removed';
}
is forged(arrived('main', '/x', ('X-Billing-Plan: a') x 50)), '', 'fifty of them are';

# CGI makes the same name of these.
my @odd = ('X_Billing_Plan', 'x-billing_plan', 'X_Billing-Plan', 'X.Billing.Plan', 'X_Billing.Plan', 'X-Billing-Max_Tokens', 'X_Billing_Max_Tokens', 'X_Billing_A_B_C_D_E_F_G');
for my $port (qw(main under invalid both)) {
    is forged(arrived($port, '/x', map { "$_: agency" } @odd)), '', "A3: other spellings, $port";
}
is arrived('under', '/x', 'X_Other: mine')->{x_other}, 'mine', 'others with an underscore arrive where nginx lets them';
is arrived('invalid', '/x', 'X.Other: mine')->{'x.other'}, 'mine', 'or with a dot';

sub over_h2($port, @lines) {
    my $address = $host->address($port);
    my $answer = qx(curl -sS --http2-prior-knowledge @{[map { "-H '$_'" } @lines]} http://$address/x 2>&1);
    return JSON::PP->new->decode($answer)->{headers};
}
my $second = over_h2('h2', @all, 'X-Other: mine', 'x-billing-plan: again');
is $second->{'x-other'}, 'mine', 'HTTP/2: what has another name arrives';
is forged($second), '', 'A3: HTTP/2: no name of ours does';
is forged(over_h2($_, map { "$_: agency" } @odd)), '', "A3: HTTP/2: other spellings, $_" for qw(underh2 invalidh2);

# nginx keeps fields in pieces of twenty, and a piece must not be left without one.
my @broken;
for my $before (0 .. 43) {
    for my $forged (1, 2, 25) {
        for my $after (0, 1, 22) {
            my @sent = map { "X-Field-$_: $_" } 1 .. $before + $after;
            my $got = arrived('main', '/x', @sent[0 .. $before - 1], ('X-Billing-Plan: agency') x $forged, @sent[$before .. $#sent]);
            my $kept = join ' ', map { "X-Field-$_: " . ($got->{"x-field-$_"} // '') } 1 .. $before + $after;
            push @broken, "$before before, $forged of ours, $after after" if $kept ne "@sent" || forged($got) || !$got->{host};
        }
    }
}
is "@broken", '', 'A3: at each place in the request, and nothing else is lost';

my @fields = map { "X-Field-$_: $_" } 1 .. 20;
for my $count (18, 19, 20) {
    my $got = over_h2('h2', @fields[0 .. $count - 1], 'X-Billing-Plan: agency', 'X-Last: mine');
    is forged($got) . $got->{'x-last'} . (grep { /^x-field/ } keys %$got), "mine$count", "HTTP/2: behind $count fields";
}

done_testing;
