# A webhook endpoint that records what comes and answers as told, in a process of its own; for the stand-in's own tests.
package Billing::Stripe::Receiver;
use v5.36;
use Billing::Client qw(request);
use Billing::Process qw(free_port new_directory);
use JSON::PP ();

my $json = JSON::PP->new->utf8->allow_nonref->boolean_values(0, 1);

sub new($class) {
    my $self = bless {port => free_port(), directory => new_directory()}, $class;
    $self->{process} = Billing::Process->start(
        name => 'webhook endpoint', log => "$self->{directory}/log",
        command => [$^X, (map { "-I$_" } @INC), '-MBilling::Stripe::Receiver', '-e', 'Billing::Stripe::Receiver::serve(@ARGV)', '--',
            $self->{port}],
    );
    $self->{process}->await(sub { eval { $self->all; 1 } }, 10, 'the webhook endpoint answers');
    return $self;
}

sub url($self) { "http://127.0.0.1:$self->{port}/hook" }

# What came, oldest first: {headers, body, event, at}.
sub all($self) { $json->decode(request("127.0.0.1:$self->{port}", 'GET', '/-/all')->body)->@* }

# The next answers: statuses, or "hang"; 200 when they are used up.
sub answers($self, @statuses) {
    request("127.0.0.1:$self->{port}", 'POST', '/-/answers', body => $json->encode(\@statuses));
    return;
}

sub forget($self) {
    request("127.0.0.1:$self->{port}", 'POST', '/-/forget');
    return;
}

sub stop($self) { $self->{process}->stop }

# The server itself.
sub serve($port) {
    require Mojolicious;
    require Mojo::Server::Daemon;
    my (@all, @answers);
    my $app = Mojolicious->new;
    $app->secrets(['receiver']);
    $app->log->level('warn');
    $app->routes->get('/-/all' => sub ($c) { $c->render(data => $json->encode(\@all), format => 'json') });
    $app->routes->post('/-/answers' => sub ($c) { @answers = $json->decode($c->req->body)->@*; $c->render(data => '') });
    $app->routes->post('/-/forget' => sub ($c) { @all = (); $c->render(data => '') });
    $app->routes->post('/hook' => sub ($c) {
        my $headers = $c->req->headers;
        my $body = $c->req->body;
        push @all, {headers => {map { lc($_) => $headers->header($_) } $headers->names->@*}, body => $body,
            event => eval { $json->decode($body) }};
        my $answer = shift @answers // 200;
        return $c->render_later if $answer eq 'hang';
        $c->res->headers->location('/elsewhere') if $answer =~ /^3/;
        $c->render(data => "answer $answer", status => $answer);
    });
    Mojo::Server::Daemon->new(app => $app, listen => ["http://127.0.0.1:$port"], silent => 1)->run;
    return;
}

1;
