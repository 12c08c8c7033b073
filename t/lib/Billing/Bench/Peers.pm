# What the gate is compared with: the same job, status, feature and quota, done by what is at hand without it. One nginx without our
# module, a Redis of its own, and an application in Node.js; the accounts are peer-1 to peer-N.
package Billing::Bench::Peers;
use v5.36;
use Billing::Nginx ();
use Billing::Process qw(build new_directory root slurp);
use Billing::Redis ();
use Digest::SHA qw(sha256_hex);
use File::Copy qw(copy);
use File::Path qw(make_path);

my $conf = <<'END';
%%GLOBALS%%
events { worker_connections 1024; }
http {
    %%HTTP_GLOBALS%%
    lua_package_path "%%SCRIPTS%%/?.lua;;";
    lua_shared_dict accounts %%DICTIONARY%%;
    lua_shared_dict used %%DICTIONARY%%;
    init_by_lua_block { peers = require "scripts" }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    keepalive_requests 100000000;
    upstream app { server unix:%%APP%%; keepalive 64; keepalive_requests 100000000; }
    upstream yes { server unix:%%YES%%; keepalive 64; keepalive_requests 100000000; }
    upstream node { server unix:%%NODE%%; keepalive 64; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location /none/ { proxy_pass http://app; }
        location /dict/ { access_by_lua_block { peers.dictionary("%%REDIS%%") } proxy_pass http://app; }
        location /redi/ { access_by_lua_block { peers.redis("%%REDIS%%") } proxy_pass http://app; }
        location /asks/ { auth_request /yes; proxy_pass http://app; }
        location /node/ { auth_request /node; proxy_pass http://app; }
        location = /yes { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; proxy_pass http://yes; }
        location = /node { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; proxy_pass http://node; }
    }
}
END

# As script/bench names them, with the names of their locations.
sub variants() {
    return map { {name => $_->[0], title => $_->[1], prefix => 'peer'} } (
        ['none', 'bare proxy_pass, nginx without the module'],
        ['dict', 'Lua, shared dictionary, warm'],
        ['redi', 'Lua, Redis for each request'],
        ['asks', 'auth_request, an application that says 204'],
        ['node', 'auth_request, Node.js and Redis'],
    );
}

# application, yes => sockets of the application and of one that answers 204; wrapper => [command before nginx].
sub new($class, %option) {
    my $self = bless {%option, directory => new_directory(), redis => Billing::Redis->new, accounts => 0}, $class;
    my $socket = "$self->{directory}/node.sock";
    my ($redis_socket) = $self->{redis}->address =~ /^unix:(.*)/;
    $self->{node} = Billing::Process->start(name => 'node', log => "$self->{directory}/node.log",
        command => ['node', root() . '/t/bench/peers/answer.js', packages(), $socket, $redis_socket]);
    $self->{node}->await(sub { -S $socket && (stat _)[2] & 2 }, 20, 'Node.js listens');
    return $self;
}

# Where npm has put them: in the build folder, as the lock file says.
sub packages() {
    my $folder = build() . '/bench-peers';
    make_path($folder);
    my @files = map { root() . "/t/bench/peers/$_" } qw(package.json package-lock.json);
    my $stamp = sha256_hex(map { slurp($_) } @files);
    return $folder if -e "$folder/stamp" && slurp("$folder/stamp") eq $stamp;
    copy($_, $folder) or die "$folder: $!\n" for @files;
    system("cd \Q$folder\E && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2") == 0
        or die "npm could not install t/bench/peers/package.json\n";
    Billing::Nginx::write_file("$folder/stamp", $stamp);
    return $folder;
}

# So many accounts are known to Redis.
sub accounts($self, $count) {
    for (my $from = $self->{accounts} + 1; $from <= $count; $from += 100_000) {
        $self->{redis}->client->eval("for i = ARGV[1], ARGV[2] do
            redis.call('SET', 'account:peer-' .. string.format('%d', i), '001000000000 active pro export') end", 0, $from,
            $from + 99_999 < $count ? $from + 99_999 : $count);
    }
    $self->{accounts} = $count if $count > $self->{accounts};
    return $self;
}

sub host($self, $dictionary) {
    return Billing::Nginx->new(name => 'peers', conf => $conf, workers => 1, log_level => 'warn', wrapper => $self->{wrapper},
        modules => [map { "/usr/share/nginx/modules/$_.so" } qw(ndk_http_module ngx_http_lua_module)], vars => {
            SCRIPTS => root() . '/t/bench/peers', DICTIONARY => $dictionary, APP => $self->{application}, YES => $self->{yes},
            NODE => "$self->{directory}/node.sock", REDIS => $self->{redis}->address,
        });
}

sub finish($self) {
    $self->{node}->stop;
    $self->{redis}->stop;
    return;
}

1;
